/* Whole batches of small files and of names, with the GIL released: what dataset_store.local.reading and .listing do one
 * by one.
 *
 * Promises: only what is plain is done here. A file that is not as it was found, a link, a path too long, any error of
 * the system: it is left to the caller, who has a way for each of these and says what is wrong. No state between calls.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/fs.h>
#include <sys/ioctl.h>
#endif

enum { SIZE = 0, MODIFIED = 1, CHANGED = 2, INODE = 3, STAT = 4 };
enum { MODE = 2 };
enum { STOP = 2 };

#if defined(__APPLE__)
#define MTIME_OF(s) ((s).st_mtimespec)
#define CTIME_OF(s) ((s).st_ctimespec)
#else
#define MTIME_OF(s) ((s).st_mtim)
#define CTIME_OF(s) ((s).st_ctim)
#endif

/* A time in 64 bits; 0 where it lies too far from 1970, some 292 years. */
static int
nanoseconds(struct timespec moment, int64_t *found)
{
    const int64_t most = INT64_MAX / 1000000000 - 1;

    if ((int64_t)moment.tv_sec > most || (int64_t)moment.tv_sec < -most)
        return 0;
    *found = (int64_t)moment.tv_sec * 1000000000 + moment.tv_nsec;
    return 1;
}

/* Whether an open file is a regular one of this size and, where they are told, of these times and this inode. */
static int
is_as_found(int file, const int64_t *expected, Py_ssize_t told)
{
    struct stat now;
    int64_t modified, changed;

    if (fstat(file, &now) != 0 || !S_ISREG(now.st_mode) || (int64_t)now.st_size != expected[SIZE])
        return 0;
    return told == 1 ||
           (nanoseconds(MTIME_OF(now), &modified) && modified == expected[MODIFIED] &&
            nanoseconds(CTIME_OF(now), &changed) && changed == expected[CHANGED] && (int64_t)now.st_ino == expected[INODE]);
}

static int
read_exactly(int file, char *into, int64_t size)
{
    int64_t have = 0;

    while (have < size) {
        ssize_t count = read(file, into + have, (size_t)(size - have));
        if (count <= 0)
            return 0;
        have += count;
    }
    return 1;
}

static int
read_one(const char *path, const int64_t *expected, Py_ssize_t told, char *into)
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    int done;

    if (file < 0)
        return 0;
    done = is_as_found(file, expected, told) && read_exactly(file, into, expected[SIZE]) &&
           (told == 1 || is_as_found(file, expected, told));
    close(file);
    return done;
}

PyDoc_STRVAR(read_files_doc,
"read_files(paths, expected, into, /) -> bytes\n\n"
"Read regular files, one behind the other, into a buffer. `paths` is a tuple of bytes; `expected` is native int64,\n"
"either the size of each, or rows of four: size, times of modification and of change in ns, inode. One byte a path\n"
"comes back: 1 where the file was as expected, before and after it was read where times are told, else 0, and its\n"
"room in the buffer means nothing.");

static PyObject *
read_files(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *paths, *result = NULL;
    Py_buffer expected, into;
    const char **names = NULL;
    const int64_t *rows;
    char *done;
    Py_ssize_t count, told, room = 0;

    if (!PyArg_ParseTuple(args, "O!y*w*:read_files", &PyTuple_Type, &paths, &expected, &into))
        return NULL;
    count = PyTuple_Size(paths);
    rows = expected.buf;
    told = count ? expected.len / (Py_ssize_t)sizeof *rows / count : 1;
    if ((told != 1 && told != STAT) || expected.len != count * told * (Py_ssize_t)sizeof *rows)
        goto wrong;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t size = rows[i * told + SIZE];
        if (size < 0 || size > into.len - room)
            goto wrong;
        room += (Py_ssize_t)size;
    }
    names = PyMem_Malloc((size_t)(count ? count : 1) * sizeof *names);
    result = PyBytes_FromStringAndSize(NULL, count);
    if (names == NULL || result == NULL) {
        Py_CLEAR(result);
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *name;
        /* Fails for what is no bytes, and for a zero byte inside. */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(paths, i), &name, NULL) < 0) {
            Py_CLEAR(result);
            goto done;
        }
        names[i] = name;
    }
    done = PyBytes_AsString(result);
    Py_BEGIN_ALLOW_THREADS
    char *at = into.buf;
    for (Py_ssize_t i = 0; i < count; i++) {
        done[i] = (char)read_one(names[i], rows + i * told, told, at);
        at += rows[i * told + SIZE];
    }
    Py_END_ALLOW_THREADS
    goto done;
wrong:
    PyErr_SetString(PyExc_ValueError, "read_files: rows, or room, do not go with the paths");
done:
    PyMem_Free(names);
    PyBuffer_Release(&into);
    PyBuffer_Release(&expected);
    return result;
}

/* Names, each ended by a zero byte, in a buffer that grows. */
typedef struct {
    char *text;
    size_t length, room, count;
} Names;

static int
add_name(Names *names, const char *name)
{
    size_t length = strlen(name) + 1;

    if (names->length + length > names->room) {
        size_t room = 2 * names->room + length + 4096;
        char *text = realloc(names->text, room);
        if (text == NULL)
            return 0;
        names->text = text;
        names->room = room;
    }
    memcpy(names->text + names->length, name, length);
    names->length += length;
    names->count++;
    return 1;
}

/* All names of a directory but . and .., in the system's order; 0 or an errno. */
static int
read_names(int directory, Names *names)
{
    int own = fcntl(directory, F_DUPFD_CLOEXEC, 0), problem = 0;
    DIR *stream = own < 0 ? NULL : fdopendir(own);
    const struct dirent *entry;

    if (stream == NULL) {
        problem = errno;
        if (own >= 0)
            close(own);
        return problem;
    }
    rewinddir(stream); /* the position is that of the descriptor that was given, now and afterwards */
    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (entry == NULL) {
            problem = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!add_name(names, entry->d_name)) {
            problem = ENOMEM;
            break;
        }
    }
    rewinddir(stream);
    closedir(stream);
    return problem;
}

static int
by_bytes(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

enum { LISTED = 6 };

/* The names in order, and a row of each; 0 or an errno. */
static int
list_names(int directory, Names *found, char **ordered, int64_t **rows)
{
    const char **names;
    char *to;
    struct stat now;
    int problem = read_names(directory, found);

    if (problem)
        return problem;
    names = malloc((found->count + 1) * sizeof *names);
    *ordered = malloc(found->length + 1);
    *rows = malloc((found->count + 1) * LISTED * sizeof **rows);
    if (names == NULL || *ordered == NULL || *rows == NULL) {
        free(names);
        return ENOMEM;
    }
    const char *at = found->text;
    for (size_t i = 0; i < found->count; i++, at += strlen(at) + 1)
        names[i] = at;
    qsort(names, found->count, sizeof *names, by_bytes);
    to = *ordered;
    for (size_t i = 0; i < found->count && !problem; i++) {
        int64_t *row = *rows + i * LISTED;
        size_t length = strlen(names[i]) + 1;
        memcpy(to, names[i], length);
        to += length;
        if (fstatat(directory, names[i], &now, AT_SYMLINK_NOFOLLOW) != 0) {
            problem = errno;
            break;
        }
        row[0] = (int64_t)now.st_mode;
        row[1] = (int64_t)now.st_size;
        if (!nanoseconds(MTIME_OF(now), &row[2]) || !nanoseconds(CTIME_OF(now), &row[3])) {
            problem = EOVERFLOW;
            break;
        }
        row[4] = (int64_t)now.st_ino;
        row[5] = (int64_t)now.st_dev;
    }
    free(names);
    return problem;
}

PyDoc_STRVAR(list_directory_doc,
"list_directory(descriptor, /) -> (bytes, bytes)\n\n"
"The names of an open directory, ascending, each ended by a zero byte; and of each, links not followed, a row of six\n"
"native int64: mode, size, times of modification and of change in ns, inode, device. OSError as the system says.");

static PyObject *
list_directory(PyObject *Py_UNUSED(module), PyObject *args)
{
    Names found = {NULL, 0, 0, 0};
    char *ordered = NULL;
    int64_t *rows = NULL;
    int directory, problem;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "i:list_directory", &directory))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    problem = list_names(directory, &found, &ordered, &rows);
    Py_END_ALLOW_THREADS
    if (problem) {
        errno = problem;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = Py_BuildValue("y#y#", ordered, (Py_ssize_t)found.length, (const char *)rows,
                               (Py_ssize_t)(found.count * LISTED * sizeof *rows));
    }
    free(found.text);
    free(ordered);
    free(rows);
    return result;
}

/* A new file of these bytes and this time of modification, whole or not there. */
static int
make_one(int directory, const char *name, const Py_buffer *content, int64_t mode, int64_t modified)
{
    int file = strchr(name, '/') != NULL ? -1
             : openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode);
    struct timespec times[2];
    Py_ssize_t written = 0;
    int64_t seconds = modified / 1000000000, rest = modified % 1000000000;
    int done;

    if (file < 0)
        return 0;
    while (written < content->len) {
        ssize_t count = write(file, (const char *)content->buf + written, (size_t)(content->len - written));
        if (count <= 0)
            break;
        written += count;
    }
    times[1].tv_sec = (time_t)(rest < 0 ? seconds - 1 : seconds);
    times[1].tv_nsec = (long)(rest < 0 ? rest + 1000000000 : rest);
    times[0] = times[1];
    done = written == content->len && futimens(file, times) == 0;
    done = close(file) == 0 && done;
    if (!done)
        unlinkat(directory, name, 0);
    return done;
}

PyDoc_STRVAR(write_files_doc,
"write_files(descriptor, names, contents, told, /) -> int\n\n"
"Make files in an open directory: a tuple of names, one of their contents, and of each two native int64, the mode and\n"
"the time of modification in ns. How many were made, from the first on: the next one could not be, and is not there\n"
"if it was not before.");

static PyObject *
write_files(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *names, *contents, *result = NULL;
    Py_buffer told, *held = NULL;
    const char **texts = NULL;
    Py_ssize_t count, taken = 0, done = 0;
    int directory;

    if (!PyArg_ParseTuple(args, "iO!O!y*:write_files", &directory, &PyTuple_Type, &names, &PyTuple_Type, &contents, &told))
        return NULL;
    count = PyTuple_Size(names);
    if (PyTuple_Size(contents) != count || told.len != count * 2 * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "write_files: names, contents and rows do not go together");
        goto done;
    }
    held = PyMem_Malloc((size_t)(count + 1) * sizeof *held);
    texts = PyMem_Malloc((size_t)(count + 1) * sizeof *texts);
    if (held == NULL || texts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; taken < count; taken++) {
        char *text;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(names, taken), &text, NULL) < 0 ||
            PyObject_GetBuffer(PyTuple_GetItem(contents, taken), &held[taken], PyBUF_SIMPLE) < 0)
            goto done;
        texts[taken] = text;
    }
    const int64_t *rows = told.buf;
    Py_BEGIN_ALLOW_THREADS
    while (done < count && make_one(directory, texts[done], &held[done], rows[2 * done], rows[2 * done + 1]))
        done++;
    Py_END_ALLOW_THREADS
    result = PyLong_FromSsize_t(done);
done:
    while (taken > 0)
        PyBuffer_Release(&held[--taken]);
    PyMem_Free(held);
    PyMem_Free(texts);
    PyBuffer_Release(&told);
    return result;
}

/* Whether a file found is a regular one of the size and time of modification that are told. */
static int
is_as_made(const struct stat *now, const int64_t *told)
{
    int64_t modified;

    return S_ISREG(now->st_mode) && (int64_t)now->st_size == told[SIZE] && nanoseconds(MTIME_OF(*now), &modified) &&
           modified == told[MODIFIED];
}

static int
link_one(int directory, const char *name, const char *source, const int64_t *told)
{
    struct stat now;

    return lstat(source, &now) == 0 && is_as_made(&now, told) && linkat(AT_FDCWD, source, directory, name, 0) == 0;
}

#if defined(__linux__)
static int
clone_one(int directory, const char *name, const char *source, const int64_t *told)
{
    struct timespec times[2];
    struct stat from, to;
    int there = open(source, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    int here = -1, done = 0;

    if (there < 0)
        return 0;
    if (fstat(there, &from) == 0 && is_as_made(&from, told))
        here = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)told[MODE]);
    if (here >= 0) {
        if (ioctl(here, FICLONE, there) != 0)
            /* Where blocks are never shared, asking for each file would cost much and give nothing. */
            done = errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS || errno == EXDEV ? STOP : 0;
        else
            done = fstat(here, &to) == 0 && (int64_t)to.st_size == told[SIZE] && fstat(there, &from) == 0 &&
                   is_as_made(&from, told);
        times[0] = times[1] = MTIME_OF(from);
        if (done == 1 && futimens(here, times) != 0)
            done = 0;
        if (close(here) != 0 && done == 1)
            done = 0;
        if (done != 1)
            unlinkat(directory, name, 0);
    }
    close(there);
    return done;
}
#else
static int
clone_one(int directory, const char *name, const char *source, const int64_t *told)
{
    (void)directory, (void)name, (void)source, (void)told;
    return STOP;
}
#endif

/* Make each of some names in an open directory of a file elsewhere, until one says that no more is to be tried. */
static PyObject *
of_sources(PyObject *args, Py_ssize_t columns, int (*one)(int, const char *, const char *, const int64_t *))
{
    PyObject *names, *sources, *result = NULL;
    Py_buffer told;
    const char **texts = NULL;
    Py_ssize_t count;
    int directory;

    if (!PyArg_ParseTuple(args, "iO!O!y*", &directory, &PyTuple_Type, &names, &PyTuple_Type, &sources, &told))
        return NULL;
    count = PyTuple_Size(names);
    if (PyTuple_Size(sources) != count || told.len != count * columns * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "names, sources and rows do not go together");
        goto done;
    }
    texts = PyMem_Malloc((size_t)(2 * count + 1) * sizeof *texts);
    if (texts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *text;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(names, i), &text, NULL) < 0)
            goto done;
        texts[2 * i] = text;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(sources, i), &text, NULL) < 0)
            goto done;
        texts[2 * i + 1] = text;
    }
    result = PyBytes_FromStringAndSize(NULL, count);
    if (result == NULL)
        goto done;
    char *made = PyBytes_AsString(result);
    const int64_t *rows = told.buf;
    Py_BEGIN_ALLOW_THREADS
    memset(made, 0, (size_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        int found = strchr(texts[2 * i], '/') != NULL ? 0 : one(directory, texts[2 * i], texts[2 * i + 1], rows + columns * i);
        if (found == STOP)
            break;
        made[i] = (char)found;
    }
    Py_END_ALLOW_THREADS
done:
    PyMem_Free(texts);
    PyBuffer_Release(&told);
    return result;
}

PyDoc_STRVAR(link_files_doc,
"link_files(descriptor, names, sources, told, /) -> bytes\n\n"
"Give files other names in an open directory: tuples of names and of paths, and of each two native int64, the size and\n"
"the time of modification in ns that it must have. A byte for each: 1 where that was done, 0 where it was not.");

static PyObject *
link_files(PyObject *Py_UNUSED(module), PyObject *args)
{
    return of_sources(args, 2, link_one);
}

PyDoc_STRVAR(clone_files_doc,
"clone_files(descriptor, names, sources, told, /) -> bytes\n\n"
"Make files in an open directory that share all blocks of others: as `link_files`, with the mode of the new one as the\n"
"third of three native int64. Behind the first file at which the system says that blocks are not shared here, none is.");

static PyObject *
clone_files(PyObject *Py_UNUSED(module), PyObject *args)
{
    return of_sources(args, 3, clone_one);
}

static PyMethodDef methods[] = {
    {"link_files", link_files, METH_VARARGS, link_files_doc},
    {"clone_files", clone_files, METH_VARARGS, clone_files_doc},
    {"write_files", write_files, METH_VARARGS, write_files_doc},
    {"read_files", read_files, METH_VARARGS, read_files_doc},
    {"list_directory", list_directory, METH_VARARGS, list_directory_doc},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_files", .m_doc = "Batches of small files and of names, compiled.", .m_size = 0,
    .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC
PyInit__files(void)
{
    return PyModuleDef_Init(&definition);
}
