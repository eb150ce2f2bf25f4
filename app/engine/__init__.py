"""The pipeline from due instant to recorded outcome, one file per station."""
