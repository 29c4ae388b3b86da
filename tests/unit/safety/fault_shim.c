/* Refuses calls of the C library as a file says: LD_PRELOAD it, and name the file in QUANTCHAT_FAULTS.

   Each line of the file: CALL PART ERRNO EVERY SHORT. A call on a path that contains PART, or ends with it
   where PART begins with "=", fails with ERRNO each EVERY-th time; with SHORT a refused write puts half of its bytes on the disk first. No file, no faults. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread int is_short;
static unsigned counts[16];

static int matches(const char *path, const char *part) {
    size_t length = strlen(path), wanted = strlen(part) - 1;
    if (part[0] != '=') return strstr(path, part) != NULL;
    return length >= wanted && strcmp(path + length - wanted, part + 1) == 0;
}

static int fault_of(const char *call, const char *path) {
    char text[2048], name[32], part[256];
    const char *control = getenv("QUANTCHAT_FAULTS");
    is_short = 0;
    if (control == NULL || path == NULL) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return 0;
    text[length] = 0;
    int number = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL && number < 16; number++) {
        int error = 0, every = 1, half = 0;
        if (sscanf(line, "%31s %255s %d %d %d", name, part, &error, &every, &half) < 3) continue;
        if (strcmp(name, call) != 0 || !matches(path, part)) continue;
        if (__atomic_add_fetch(&counts[number], 1, __ATOMIC_RELAXED) % (every < 1 ? 1 : every) != 0) continue;
        is_short = half;
        return error;
    }
    return 0;
}

static const char *path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

static int refused_fd(const char *call, int fd) {
    char path[PATH_MAX];
    int error = fault_of(call, path_of(fd, path));
    if (error) errno = error;
    return error;
}

static int refused(const char *call, const char *path) {
    int error = fault_of(call, path);
    if (error) errno = error;
    return error;
}

ssize_t write(int fd, const void *data, size_t count) {
    if (refused_fd("write", fd)) {
        int error = errno;
        if (is_short && count > 1) return syscall(SYS_write, fd, data, count / 2);
        errno = error;
        return -1;
    }
    return syscall(SYS_write, fd, data, count);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    if (refused_fd("write", fd)) {
        int error = errno;
        if (is_short && count > 1) return syscall(SYS_pwrite64, fd, data, count / 2, offset);
        errno = error;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, count, offset);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

int fsync(int fd) { return refused_fd("fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd); }

int ftruncate64(int fd, off64_t length) {
    return refused_fd("truncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

int rename(const char *from, const char *to) {
    return refused("rename", to) ? -1 : (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path) { return refused("unlink", path) ? -1 : (int)syscall(SYS_unlink, path); }

int flock(int fd, int operation) {
    return refused_fd("flock", fd) ? -1 : (int)syscall(SYS_flock, fd, operation);
}

static int opened(const char *path, int flags, mode_t mode) {
    const char *call = (flags & (O_WRONLY | O_RDWR)) ? "create" : "open";
    return refused(call, path) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return opened(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return opened(path, flags, mode);
}
