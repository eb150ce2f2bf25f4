"""What answers say in two languages at once."""

from pydantic import BaseModel, Field


class Words(BaseModel):
    """The same in two languages."""

    en: str = Field(examples=["At 09:00, Monday to Friday (Asia/Tokyo)"])
    ja: str = Field(examples=["毎週月〜金曜日の9時00分（Asia/Tokyo）"])
