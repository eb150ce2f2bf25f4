/*
 * Keeps a copy of each database file as it was when it was last flushed to the disk: what a power
 * loss would leave in the worst case. Loaded into the service with LD_PRELOAD by
 * tests/support/power_loss.py; the copies and a log of all flushes go to the folder $KEEP_SYNCED.
 *
 * The file is read through the descriptor that was flushed: opening it anew and closing that again
 * would end the locks that SQLite holds on it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void note(const char *folder, const char *name)
{
    char path[PATH_MAX], line[PATH_MAX];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(path, sizeof path, "%s/flushes", folder);
    int length = snprintf(line, sizeof line, "%lld.%09ld %s\n", (long long)now.tv_sec, now.tv_nsec, name);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, length) != length)
        abort();
    close(log);
}

static void keep(int fd)
{
    static _Thread_local char bytes[1 << 20];
    char link[64], path[PATH_MAX], kept[PATH_MAX], fresh[PATH_MAX];
    const char *folder = getenv("KEEP_SYNCED");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (folder == NULL || length < 0)
        return;
    path[length] = 0;
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, "jobs.db", 7) != 0)
        return;
    if (snprintf(kept, sizeof kept, "%s/%s", folder, name) >= (int)sizeof kept - 8)
        abort();
    snprintf(fresh, sizeof fresh, "%.4000s.fresh", kept);
    int copy = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    off_t at = 0;
    while ((length = pread(fd, bytes, sizeof bytes, at)) > 0) {
        if (write(copy, bytes, length) != length)
            abort();
        at += length;
    }
    if (copy < 0 || length < 0 || close(copy) != 0 || rename(fresh, kept) != 0)
        abort();
    note(folder, name);
}

static int flush(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    if (result == 0)
        keep(fd);
    return result;
}

int fsync(int fd)
{
    return flush("fsync", fd);
}

int fdatasync(int fd)
{
    return flush("fdatasync", fd);
}
