/* An LD_PRELOAD library that makes the file-system calls below one directory fail, or the process die at one of them.
 *
 * FAULTS_ROOT   the directory; calls elsewhere are left alone
 * FAULTS_LOG    file that one line is written to for each call: its number, its name, its path
 * FAULTS_AT     number of the call that is disturbed, from 1
 * FAULTS_ONLY   name of the calls that are counted, logged and disturbed; without it, all are
 * FAULTS_HOW    what happens to it: `errno N` (it fails), `short` (half is read or written), `before` or `after` (the
 *               process is killed then), `stop` (the process is stopped before it, until somebody continues it)
 * FAULTS_LOCKS  errno of every call of flock
 * FAULTS_EXCHANGE errno of every call that would exchange two names
 * FAULTS_JOURNAL file that everything done is written to, with the bytes: see journal.py
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536
static char *root, *only, *names[FDS];
static size_t root_len;
static int logged = -1, journal = -1, locks, exchanges, at, fault_errno, is_short, dies_before, dies_after, stops;
static int calls;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    const char *how = getenv("FAULTS_HOW"), *path;
    root = getenv("FAULTS_ROOT");
    if (!root) return;
    root_len = strlen(root);
    only = getenv("FAULTS_ONLY");
    at = getenv("FAULTS_AT") ? atoi(getenv("FAULTS_AT")) : 0;
    locks = getenv("FAULTS_LOCKS") ? atoi(getenv("FAULTS_LOCKS")) : 0;
    exchanges = getenv("FAULTS_EXCHANGE") ? atoi(getenv("FAULTS_EXCHANGE")) : 0;
    if (how && !strncmp(how, "errno ", 6)) fault_errno = atoi(how + 6);
    is_short = how && !strcmp(how, "short");
    dies_before = how && !strcmp(how, "before");
    stops = how && !strcmp(how, "stop");
    dies_after = how && !strcmp(how, "after");
    if ((path = getenv("FAULTS_LOG"))) logged = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if ((path = getenv("FAULTS_JOURNAL"))) journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static const char *of_fd(int fd) { return fd >= 0 && fd < FDS ? names[fd] : NULL; }

/* The path if it is below the root, else NULL. */
static const char *below(int dir, const char *path, char *buffer) {
    const char *parent;
    if (!root || !path) return NULL;
    if (path[0] == '/') snprintf(buffer, PATH_MAX, "%s", path);
    else if (dir == AT_FDCWD) {
        if (!getcwd(buffer, PATH_MAX)) return NULL;
        size_t len = strlen(buffer);
        snprintf(buffer + len, PATH_MAX - len, "/%s", path);
    } else if ((parent = of_fd(dir))) snprintf(buffer, PATH_MAX, *path ? "%s/%s" : "%s", parent, path);
    else return NULL;
    return !strncmp(buffer, root, root_len) && (buffer[root_len] == '/' || !buffer[root_len]) ? buffer : NULL;
}

static void keep(int fd, const char *path) {
    if (fd < 0 || fd >= FDS) return;
    free(names[fd]);
    names[fd] = path ? strdup(path) : NULL;
}

/* One record: a letter, two paths, a number, bytes. */
static void record(char kind, const char *path, const char *other, uint64_t number, const void *bytes, size_t len) {
    if (journal < 0) return;
    char head[2 * PATH_MAX + 64];
    int head_len = snprintf(head, sizeof head, "%c %zu %zu %llu %zu\n%s%s", kind, strlen(path),
                            other ? strlen(other) : 0,
                            (unsigned long long)number, len, path, other ? other : "");
    struct iovec parts[2] = {{head, head_len}, {(void *)bytes, len}};
    REAL(writev)(journal, parts, 2);
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

/* Counts a call. Returns whether it is to fail; `errno` is set then. */
static int disturbed(const char *name, const char *path, int *number) {
    if (!path || (only && strcmp(only, name))) { *number = 0; return 0; }
    *number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (logged >= 0) {
        char line[PATH_MAX + 64];
        int len = snprintf(line, sizeof line, "%d %s %s\n", *number, name, path);
        if (REAL(write)(logged, line, len) < 0) abort();
    }
    if (*number != at) return 0;
    if (dies_before) die();
    if (stops) kill(getpid(), SIGSTOP);
    if (fault_errno) { errno = fault_errno; return 1; }
    return 0;
}

#define BEGIN(name, dir, path, failed) \
    char buffer_[PATH_MAX]; int number_ = 0; const char *path_ = below(dir, path, buffer_); \
    if (journal >= 0 && path_) pthread_mutex_lock(&turn); \
    if (disturbed(name, path_, &number_)) { if (journal >= 0) pthread_mutex_unlock(&turn); return failed; }
#define BEGIN_FD(name, fd, failed) \
    int number_ = 0; const char *path_ = of_fd(fd); \
    if (journal >= 0 && path_) pthread_mutex_lock(&turn); \
    if (disturbed(name, path_, &number_)) { if (journal >= 0) pthread_mutex_unlock(&turn); return failed; }
#define END \
    int errno_ = errno; \
    if (journal >= 0 && path_) pthread_mutex_unlock(&turn); \
    if (path_ && number_ == at && dies_after) die(); \
    errno = errno_;
#define IS_SHORT (path_ && number_ == at && is_short)

static int opened(int fd, int flags, const char *path, int was_there) {
    if (fd >= 0) {
        keep(fd, path);
        if (path && (flags & O_CREAT) && !was_there) record('C', path, NULL, 0, NULL, 0);
        if (path && (flags & O_TRUNC) && was_there) record('T', path, NULL, 0, NULL, 0);
    }
    return fd;
}

#define OPEN(function, dir, ...) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); \
    } \
    BEGIN(#function, dir, path, -1) \
    struct stat found_; \
    int was_there = path_ && journal >= 0 && !REAL(fstatat)(AT_FDCWD, path_, &found_, AT_SYMLINK_NOFOLLOW); \
    int done = opened(REAL(function)(__VA_ARGS__, flags, mode), flags, path_, was_there); \
    END return done;
int open(const char *path, int flags, ...) { OPEN(open, AT_FDCWD, path) }
int open64(const char *path, int flags, ...) { OPEN(open64, AT_FDCWD, path) }
int openat(int dir, const char *path, int flags, ...) { OPEN(openat, dir, dir, path) }
int openat64(int dir, const char *path, int flags, ...) { OPEN(openat64, dir, dir, path) }

/* Never fails: what is closed is closed. */
int close(int fd) {
    if (fd == logged || fd == journal) return 0;
    keep(fd, NULL);
    return REAL(close)(fd);
}
int fcntl64(int fd, int command, ...) {
    va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more);
    int done = REAL(fcntl64)(fd, command, argument);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && done >= 0) keep(done, of_fd(fd));
    return done;
}
int fcntl(int fd, int command, ...) {
    va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more);
    int done = REAL(fcntl)(fd, command, argument);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && done >= 0) keep(done, of_fd(fd));
    return done;
}

ssize_t read(int fd, void *bytes, size_t len) {
    BEGIN_FD("read", fd, -1)
    ssize_t done = REAL(read)(fd, bytes, IS_SHORT && len > 1 ? len / 2 : len);
    END return done;
}
ssize_t pread64(int fd, void *bytes, size_t len, off64_t offset) {
    BEGIN_FD("pread", fd, -1)
    ssize_t done = REAL(pread64)(fd, bytes, IS_SHORT && len > 1 ? len / 2 : len, offset);
    END return done;
}
static off_t place(int fd, const char *path) { return path && journal >= 0 ? lseek(fd, 0, SEEK_CUR) : 0; }
ssize_t write(int fd, const void *bytes, size_t len) {
    BEGIN_FD("write", fd, -1)
    off_t offset = place(fd, path_);
    ssize_t done = REAL(write)(fd, bytes, IS_SHORT && len > 1 ? len / 2 : len);
    if (path_ && done > 0) record('W', path_, NULL, offset, bytes, done);
    END return done;
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    BEGIN_FD("writev", fd, -1)
    off_t offset = place(fd, path_);
    ssize_t done = REAL(writev)(fd, parts, IS_SHORT ? 1 : count), left = done;
    for (int part = 0; path_ && part < count && left > 0; part++) {
        size_t len = (size_t)left < parts[part].iov_len ? (size_t)left : parts[part].iov_len;
        record('W', path_, NULL, offset, parts[part].iov_base, len);
        offset += len; left -= len;
    }
    END return done;
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    BEGIN_FD("pwrite", fd, -1)
    ssize_t done = REAL(pwrite64)(fd, bytes, IS_SHORT && len > 1 ? len / 2 : len, offset);
    if (path_ && done > 0) record('W', path_, NULL, offset, bytes, done);
    END return done;
}
/* Copies go through read and write instead. */
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t len, unsigned flags) {
    (void)from; (void)a; (void)to; (void)b; (void)len; (void)flags; errno = ENOSYS; return -1;
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t len) {
    (void)from; (void)to; (void)offset; (void)len; errno = ENOSYS; return -1;
}
int ftruncate64(int fd, off64_t len) {
    BEGIN_FD("ftruncate", fd, -1)
    int done = REAL(ftruncate64)(fd, len);
    if (path_ && !done) record('T', path_, NULL, len, NULL, 0);
    END return done;
}
#define FLUSH(function) \
    BEGIN_FD(#function, fd, -1) int done = REAL(function)(fd); \
    if (path_ && !done) record('S', path_, NULL, 0, NULL, 0); \
    END return done;
int fsync(int fd) { FLUSH(fsync) }
int fdatasync(int fd) { FLUSH(fdatasync) }
int syncfs(int fd) {
    BEGIN_FD("syncfs", fd, -1) int done = REAL(syncfs)(fd);
    if (path_ && !done) record('Y', path_, NULL, 0, NULL, 0);
    END return done;
}
int flock(int fd, int operation) {
    if (locks) { errno = locks; return -1; }
    BEGIN_FD("flock", fd, -1)
    int done = REAL(flock)(fd, operation);
    END return done;
}

/* What waits for those who list a directory goes on at once: nobody does. */
static int is_long(const struct timespec *time) { return root && (time->tv_sec || time->tv_nsec >= 400000000L); }
int nanosleep(const struct timespec *time, struct timespec *rest) {
    return is_long(time) ? 0 : REAL(nanosleep)(time, rest);
}
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest) {
    return !flags && is_long(time) ? 0 : REAL(clock_nanosleep)(clock, flags, time, rest);
}

int rename(const char *from, const char *to) {
    char other[PATH_MAX]; const char *target = below(AT_FDCWD, to, other);
    BEGIN("rename", AT_FDCWD, from, -1)
    int done = REAL(rename)(from, to);
    if (path_ && target && !done) record('R', path_, target, 0, NULL, 0);
    END return done;
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    char other[PATH_MAX]; const char *target = below(to_dir, to, other);
    BEGIN("renameat", from_dir, from, -1)
    int done = REAL(renameat)(from_dir, from, to_dir, to);
    if (path_ && target && !done) record('R', path_, target, 0, NULL, 0);
    END return done;
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char other[PATH_MAX]; const char *target = below(to_dir, to, other);
    int is_exchange = flags & RENAME_EXCHANGE;
    if (exchanges && is_exchange) { errno = exchanges; return -1; }
    BEGIN("renameat2", from_dir, from, -1)
    int done = REAL(renameat2)(from_dir, from, to_dir, to, flags);
    if (path_ && target && !done) record(is_exchange ? 'X' : 'R', path_, target, 0, NULL, 0);
    END return done;
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char other[PATH_MAX]; const char *target = below(to_dir, to, other);
    BEGIN("linkat", from_dir, from, -1)
    int done = REAL(linkat)(from_dir, from, to_dir, to, flags);
    if (path_ && target && !done) record('L', path_, target, 0, NULL, 0);
    END return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
#define NAME(name, dir, path, kind, call) \
    BEGIN(name, dir, path, -1) int done = call; \
    if (path_ && !done) record(kind, path_, NULL, 0, NULL, 0); \
    END return done;
int unlink(const char *path) { NAME("unlink", AT_FDCWD, path, 'U', REAL(unlink)(path)) }
int rmdir(const char *path) { NAME("rmdir", AT_FDCWD, path, 'U', REAL(rmdir)(path)) }
int unlinkat(int dir, const char *path, int flags) {
    NAME("unlinkat", dir, path, 'U', REAL(unlinkat)(dir, path, flags))
}
int mkdir(const char *path, mode_t mode) { NAME("mkdir", AT_FDCWD, path, 'M', REAL(mkdir)(path, mode)) }
int mkdirat(int dir, const char *path, mode_t mode) { NAME("mkdirat", dir, path, 'M', REAL(mkdirat)(dir, path, mode)) }
int chmod(const char *path, mode_t mode) {
    BEGIN("chmod", AT_FDCWD, path, -1)
    int done = REAL(chmod)(path, mode);
    END return done;
}

DIR *opendir(const char *path) {
    BEGIN("opendir", AT_FDCWD, path, NULL)
    DIR *done = REAL(opendir)(path);
    if (done) keep(dirfd(done), path_);
    END return done;
}
DIR *fdopendir(int fd) {
    BEGIN_FD("fdopendir", fd, NULL)
    DIR *done = REAL(fdopendir)(fd);
    END return done;
}
int closedir(DIR *dir) {
    keep(dirfd(dir), NULL);
    return REAL(closedir)(dir);
}
struct dirent64 *readdir64(DIR *dir) {
    BEGIN_FD("readdir", dirfd(dir), NULL)
    struct dirent64 *done = REAL(readdir64)(dir);
    END return done;
}
int statx(int dir, const char *path, int flags, unsigned mask, struct statx *found) {
    BEGIN("statx", dir, path, -1)
    int done = REAL(statx)(dir, path, flags, mask, found);
    END return done;
}
#define STAT(function, dir, path, ...) \
    BEGIN(#function, dir, path, -1) int done = REAL(function)(__VA_ARGS__, found); END return done;
int stat64(const char *path, struct stat64 *found) { STAT(stat64, AT_FDCWD, path, path) }
int lstat64(const char *path, struct stat64 *found) { STAT(lstat64, AT_FDCWD, path, path) }
int fstat64(int fd, struct stat64 *found) {
    BEGIN_FD("fstat64", fd, -1)
    int done = REAL(fstat64)(fd, found);
    END return done;
}
char *realpath(const char *path, char *resolved) {
    BEGIN("realpath", AT_FDCWD, path, NULL)
    char *done = REAL(realpath)(path, resolved);
    END return done;
}
