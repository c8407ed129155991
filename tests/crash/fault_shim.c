/* Loaded before libc (LD_PRELOAD): stands before every call by which a process changes files below one folder.

   Armed, it counts these calls over all threads, and at one of them kills the process, fails, or writes half of the bytes.
   Tracing, it writes each call that succeeded into a file, one after the other, so that states of the disk can be made of them.
   Not armed and not tracing it does nothing. What it does not see: raw system calls, and writes into memory maps. */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_FILES = 1 << 16, MOST_CALLS = 1 << 16 };
enum { COUNT = 1, KILL, FAIL, FAIL_ON, SHORT };  /* what happens at the call; FAIL_ON: at all later ones that grow too */

static char root[PATH_MAX];
static unsigned char below[MOST_FILES];  /* of each descriptor, whether it is of something below the root */
static int mode, failure;
static long chosen;
static atomic_long calls;
static char kinds[MOST_CALLS];
static int trace = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

/* --- what tests call ----------------------------------------------------------------------------------------------- */

void shim_watch(const char *path) { snprintf(root, sizeof root, "%s", path); }

void shim_arm(int what, long call, int number)
{
    atomic_store(&calls, 0);
    chosen = call;
    failure = number;
    mode = what;
}

long shim_calls(char *into, long room)
{
    long count = atomic_load(&calls);
    memcpy(into, kinds, count < room ? count : room);
    return count;
}

void shim_trace(int file) { trace = file; }

/* --- which calls count --------------------------------------------------------------------------------------------- */

static int is_watched(int file) { return file >= 0 && file < MOST_FILES && below[file]; }

static int is_below(int folder, const char *path)
{
    int file;
    size_t length = strlen(root);
    if (!root[0] || !path) return 0;
    if (sscanf(path, "/proc/self/fd/%d", &file) == 1) return is_watched(file);
    if (path[0] == '/') return !strncmp(path, root, length) && (!path[length] || path[length] == '/');
    return folder != AT_FDCWD && is_watched(folder);
}

/* Kinds: w writes bytes, o makes a file, n makes another name, g makes room, s flushes, u takes away, m changes metadata,
   r opens what is there. */
static int judge(char kind, int concerned)
{
    long call;
    if (!mode || !concerned) return 0;
    call = atomic_fetch_add(&calls, 1) + 1;
    if (call <= MOST_CALLS) kinds[call - 1] = kind;
    if (mode == COUNT || call < chosen || (call > chosen && mode != FAIL_ON)) return 0;
    if (mode == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if (mode == SHORT) return kind == 'w' ? -1 : 0;
    if (mode == FAIL_ON && !strchr("wong", kind)) return 0;
    errno = failure;
    return 1;
}

/* --- the trace: fixed fields, then the bytes of two texts ----------------------------------------------------------- */

struct record { uint64_t one, other; int64_t offset; uint32_t first, second; char what, pad[7]; };

static void tell(char what, uint64_t one, uint64_t other, int64_t offset, const char *first, const void *second, size_t length)
{
    struct record record = {one, other, offset, first ? strlen(first) : 0, length, what, {0}};
    struct iovec parts[3] = {{&record, sizeof record}, {(void *)first, record.first}, {(void *)second, length}};
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    if (real(trace, parts, 3) != (ssize_t)(sizeof record + record.first + length)) abort();
}

static uint64_t inode_at(int folder, const char *path, int flags)
{
    struct stat found;
    return fstatat(folder, path, &found, flags) ? 0 : found.st_ino;
}

static uint64_t inode_of(int file)
{
    struct stat found;
    return fstat(file, &found) ? 0 : found.st_ino;
}

/* The folder that holds a path; its last name is copied to `name`. */
static uint64_t parent_of(int folder, const char *path, char *name)
{
    char copy[PATH_MAX], other[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    snprintf(other, sizeof other, "%s", path);
    snprintf(name, NAME_MAX + 1, "%s", basename(other));
    return inode_at(folder, dirname(copy), 0);
}

static void tell_name(char what, int folder, const char *path, uint64_t inode)
{
    char name[NAME_MAX + 1];
    uint64_t parent = parent_of(folder, path, name);
    tell(what, parent, inode, 0, name, NULL, 0);
}

static void tell_vector(int file, const struct iovec *parts, int count, ssize_t done, int64_t offset)
{
    uint64_t inode = inode_of(file);
    for (int at = 0; at < count && done > 0; at++) {
        size_t length = parts[at].iov_len < (size_t)done ? parts[at].iov_len : (size_t)done;
        tell('w', inode, 0, offset, NULL, parts[at].iov_base, length);
        offset += length;
        done -= length;
    }
}

#define NEXT(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define BEGIN(concerned) int traced = trace >= 0 && (concerned); if (traced) pthread_mutex_lock(&order)
#define END() do { if (traced) { int kept = errno; pthread_mutex_unlock(&order); errno = kept; } } while (0)

/* --- bytes ----------------------------------------------------------------------------------------------------------- */

#define WRITES(name, arguments, given, halved, position)                                   \
    ssize_t name arguments                                                                 \
    {                                                                                      \
        NEXT(name);                                                                        \
        int verdict = judge('w', is_watched(file));                                        \
        if (verdict > 0) return -1;                                                        \
        BEGIN(is_watched(file));                                                           \
        ssize_t done = verdict < 0 ? real halved : real given;                             \
        if (traced && done > 0) {                                                          \
            struct iovec whole = {(void *)data, (size_t)done};                             \
            tell_vector(file, &whole, 1, done, position);                                  \
        }                                                                                  \
        END();                                                                             \
        return done;                                                                       \
    }

#define HALF(length) ((length) > 1 ? (length) / 2 : (length))
#define POSITION (lseek(file, 0, SEEK_CUR) - done)
WRITES(write, (int file, const void *data, size_t length), (file, data, length), (file, data, HALF(length)), POSITION)
WRITES(pwrite, (int file, const void *data, size_t length, off_t offset), (file, data, length, offset),
       (file, data, HALF(length), offset), offset)
WRITES(pwrite64, (int file, const void *data, size_t length, off64_t offset), (file, data, length, offset),
       (file, data, HALF(length), offset), offset)

#define WRITES_PARTS(name, arguments, given, halved, position)                             \
    ssize_t name arguments                                                                 \
    {                                                                                      \
        NEXT(name);                                                                        \
        int verdict = judge('w', is_watched(file));                                        \
        if (verdict > 0) return -1;                                                        \
        struct iovec less[1] = {{parts[0].iov_base, HALF(parts[0].iov_len)}};              \
        BEGIN(is_watched(file));                                                           \
        ssize_t done = verdict < 0 ? real halved : real given;                             \
        if (traced && done > 0) tell_vector(file, parts, count, done, position);           \
        END();                                                                             \
        return done;                                                                       \
    }

WRITES_PARTS(writev, (int file, const struct iovec *parts, int count), (file, parts, count), (file, less, 1), POSITION)
WRITES_PARTS(pwritev, (int file, const struct iovec *parts, int count, off_t offset), (file, parts, count, offset),
             (file, less, 1, offset), offset)
WRITES_PARTS(pwritev64, (int file, const struct iovec *parts, int count, off64_t offset), (file, parts, count, offset),
             (file, less, 1, offset), offset)
WRITES_PARTS(pwritev2, (int file, const struct iovec *parts, int count, off_t offset, int flags),
             (file, parts, count, offset, flags), (file, less, 1, offset, flags), offset)
WRITES_PARTS(pwritev64v2, (int file, const struct iovec *parts, int count, off64_t offset, int flags),
             (file, parts, count, offset, flags), (file, less, 1, offset, flags), offset)

/* What was copied into a file, told by reading it where it came from. */
static void tell_copied(int file, int source, int64_t from, int64_t to, ssize_t done)
{
    char piece[1 << 16];
    uint64_t inode = inode_of(file);
    while (done > 0) {
        ssize_t got = pread(source, piece, (size_t)done < sizeof piece ? (size_t)done : sizeof piece, from);
        if (got <= 0) abort();
        tell('w', inode, 0, to, NULL, piece, got);
        from += got;
        to += got;
        done -= got;
    }
}

ssize_t copy_file_range(int source, off64_t *from, int file, off64_t *to, size_t length, unsigned flags)
{
    NEXT(copy_file_range);
    int verdict = judge('w', is_watched(file));
    if (verdict > 0) return -1;
    BEGIN(is_watched(file));
    ssize_t done = real(source, from, file, to, verdict < 0 ? HALF(length) : length, flags);
    if (traced && done > 0)
        tell_copied(file, source, (from ? *from : lseek(source, 0, SEEK_CUR)) - done,
                    (to ? *to : lseek(file, 0, SEEK_CUR)) - done, done);
    END();
    return done;
}

#define SENDS(name, type)                                                                  \
    ssize_t name(int file, int source, type *from, size_t length)                          \
    {                                                                                      \
        NEXT(name);                                                                        \
        int verdict = judge('w', is_watched(file));                                        \
        if (verdict > 0) return -1;                                                        \
        BEGIN(is_watched(file));                                                           \
        ssize_t done = real(file, source, from, verdict < 0 ? HALF(length) : length);      \
        if (traced && done > 0)                                                            \
            tell_copied(file, source, (from ? *from : lseek(source, 0, SEEK_CUR)) - done, POSITION, done); \
        END();                                                                             \
        return done;                                                                       \
    }
SENDS(sendfile, off_t)
SENDS(sendfile64, off64_t)
#define CUTS(name, type)                                                                   \
    int name(int file, type length)                                                        \
    {                                                                                      \
        NEXT(name);                                                                        \
        if (judge('g', is_watched(file)) > 0) return -1;                                   \
        BEGIN(is_watched(file));                                                           \
        int done = real(file, length);                                                     \
        if (traced && !done) tell('t', inode_of(file), 0, length, NULL, NULL, 0);          \
        END();                                                                             \
        return done;                                                                       \
    }
CUTS(ftruncate, off_t)
CUTS(ftruncate64, off64_t)
#define RESERVES(name, type)                                                               \
    int name(int file, type offset, type length)                                           \
    {                                                                                      \
        NEXT(name);                                                                        \
        if (judge('g', is_watched(file)) > 0) return errno;                                \
        BEGIN(is_watched(file));                                                           \
        int done = real(file, offset, length);                                             \
        if (traced && !done) tell('e', inode_of(file), 0, offset + length, NULL, NULL, 0); \
        END();                                                                             \
        return done;                                                                       \
    }
RESERVES(posix_fallocate, off_t)
RESERVES(posix_fallocate64, off64_t)

int fallocate(int file, int how, off_t offset, off_t length)
{
    NEXT(fallocate);
    if (judge('g', is_watched(file)) > 0) return -1;
    return real(file, how, offset, length);
}

int ioctl(int file, unsigned long request, ...)
{
    NEXT(ioctl);
    va_list rest;
    va_start(rest, request);
    void *given = va_arg(rest, void *);
    va_end(rest);
    if (request == 0x40049409 && judge('w', is_watched(file)) > 0) return -1; /* FICLONE */
    return real(file, request, given);
}

/* --- flushing -------------------------------------------------------------------------------------------------------- */

#define FLUSHES(name)                                                                      \
    int name(int file)                                                                     \
    {                                                                                      \
        NEXT(name);                                                                        \
        if (judge('s', is_watched(file)) > 0) return -1;                                   \
        BEGIN(is_watched(file));                                                           \
        int done = real(file);                                                             \
        if (traced && !done) tell(#name[0] == 's' ? 'F' : 'f', inode_of(file), 0, 0, NULL, NULL, 0); \
        END();                                                                             \
        return done;                                                                       \
    }
FLUSHES(fsync)
FLUSHES(fdatasync)
FLUSHES(syncfs)
int msync(void *start, size_t length, int flags)
{
    NEXT(msync);
    if (judge('s', root[0] != 0) > 0) return -1;
    return real(start, length, flags);
}

int sync_file_range(int file, off64_t offset, off64_t length, unsigned flags)
{
    NEXT(sync_file_range);
    if (judge('s', is_watched(file)) > 0) return -1;
    return real(file, offset, length, flags);
}

/* --- files and names ------------------------------------------------------------------------------------------------- */

static int makes(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

typedef int opener(int, const char *, int, ...);

static int open_by(opener *real, int folder, const char *path, int flags, mode_t bits)
{
    int watched = is_below(folder, path);
    int nameless = (flags & O_TMPFILE) == O_TMPFILE;
    if (judge(makes(flags) ? 'o' : 'r', watched) > 0) return -1;
    BEGIN(watched);
    int is_new = traced && !nameless && (flags & O_CREAT) && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW);
    int file = real(folder, path, flags, bits);
    if (file >= 0 && file < MOST_FILES) below[file] = watched;
    if (traced && file >= 0 && nameless) tell('n', 0, inode_of(file), 0, NULL, NULL, 0);
    if (traced && file >= 0 && is_new) tell_name('c', folder, path, inode_of(file));
    if (traced && file >= 0 && !is_new && !nameless && (flags & O_TRUNC)) tell('t', inode_of(file), 0, 0, NULL, NULL, 0);
    END();
    return file;
}

#define OPENS_AT(name)                                                                     \
    int name(int folder, const char *path, int flags, ...)                                 \
    {                                                                                      \
        static opener *real;                                                               \
        if (!real) real = (opener *)dlsym(RTLD_NEXT, "openat64");                          \
        mode_t bits = 0;                                                                   \
        va_list rest;                                                                      \
        va_start(rest, flags);                                                             \
        if (makes(flags)) bits = va_arg(rest, mode_t);                                     \
        va_end(rest);                                                                      \
        return open_by(real, folder, path, flags, bits);                                   \
    }
OPENS_AT(openat)
OPENS_AT(openat64)
#define OPENS(name)                                                                        \
    int name(const char *path, int flags, ...)                                             \
    {                                                                                      \
        mode_t bits = 0;                                                                   \
        va_list rest;                                                                      \
        va_start(rest, flags);                                                             \
        if (makes(flags)) bits = va_arg(rest, mode_t);                                     \
        va_end(rest);                                                                      \
        return openat64(AT_FDCWD, path, flags, bits);                                      \
    }
OPENS(open)
OPENS(open64)
int __open_2(const char *path, int flags) { return openat64(AT_FDCWD, path, flags); }
int __open64_2(const char *path, int flags) { return openat64(AT_FDCWD, path, flags); }
int __openat_2(int folder, const char *path, int flags) { return openat64(folder, path, flags); }
int __openat64_2(int folder, const char *path, int flags) { return openat64(folder, path, flags); }
int creat(const char *path, mode_t bits) { return openat64(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, bits); }
int creat64(const char *path, mode_t bits) { return openat64(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, bits); }

int close(int file)
{
    NEXT(close);
    if (file >= 0 && file < MOST_FILES) below[file] = 0;
    return real(file);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    NEXT(linkat);
    int watched = is_below(to, new);
    if (judge('n', watched) > 0) return -1;
    BEGIN(watched);
    int done = real(from, old, to, new, flags);
    if (traced && !done) tell_name('l', to, new, inode_at(to, new, AT_SYMLINK_NOFOLLOW));
    END();
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int folder, const char *path)
{
    NEXT(symlinkat);
    int watched = is_below(folder, path);
    if (judge('n', watched) > 0) return -1;
    BEGIN(watched);
    int done = real(target, folder, path);
    if (traced && !done) {
        char name[NAME_MAX + 1];
        uint64_t parent = parent_of(folder, path, name);
        tell('s', parent, inode_at(folder, path, AT_SYMLINK_NOFOLLOW), 0, name, target, strlen(target));
    }
    END();
    return done;
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    NEXT(renameat2);
    int watched = is_below(to, new) || is_below(from, old);
    if (judge('n', watched) > 0) return -1;
    BEGIN(watched);
    int done = real(from, old, to, new, flags);
    if (traced && !done) {
        char first[NAME_MAX + 1], second[NAME_MAX + 1];
        uint64_t one = parent_of(from, old, first), other = parent_of(to, new, second);
        tell('r', one, other, 0, first, second, strlen(second));
    }
    END();
    return done;
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int folder, const char *path, int flags)
{
    NEXT(unlinkat);
    int watched = is_below(folder, path);
    if (judge('u', watched) > 0) return -1;
    BEGIN(watched);
    int done = real(folder, path, flags);
    if (traced && !done) tell_name('u', folder, path, 0);
    END();
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t bits)
{
    NEXT(mkdirat);
    int watched = is_below(folder, path);
    if (judge('o', watched) > 0) return -1;
    BEGIN(watched);
    int done = real(folder, path, bits);
    if (traced && !done) tell_name('d', folder, path, inode_at(folder, path, 0));
    END();
    return done;
}
int mkdir(const char *path, mode_t bits) { return mkdirat(AT_FDCWD, path, bits); }

/* --- metadata -------------------------------------------------------------------------------------------------------- */

int fchmod(int file, mode_t bits)
{
    NEXT(fchmod);
    return judge('m', is_watched(file)) > 0 ? -1 : real(file, bits);
}

int fchmodat(int folder, const char *path, mode_t bits, int flags)
{
    NEXT(fchmodat);
    return judge('m', is_below(folder, path)) > 0 ? -1 : real(folder, path, bits, flags);
}
int chmod(const char *path, mode_t bits) { return fchmodat(AT_FDCWD, path, bits, 0); }

/* A time is part of what a file says of itself: the trace has it, in nanoseconds. */
static void tell_time(uint64_t inode, const struct timespec times[2])
{
    if (times && times[1].tv_nsec != UTIME_NOW && times[1].tv_nsec != UTIME_OMIT)
        tell('z', inode, 0, times[1].tv_sec * 1000000000LL + times[1].tv_nsec, NULL, NULL, 0);
}

int futimens(int file, const struct timespec times[2])
{
    NEXT(futimens);
    if (judge('m', is_watched(file)) > 0) return -1;
    BEGIN(is_watched(file));
    int done = real(file, times);
    if (traced && !done) tell_time(inode_of(file), times);
    END();
    return done;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags)
{
    NEXT(utimensat);
    if (judge('m', is_below(folder, path)) > 0) return -1;
    BEGIN(is_below(folder, path));
    int done = real(folder, path, times, flags);
    if (traced && !done) tell_time(inode_at(folder, path, flags), times);
    END();
    return done;
}
