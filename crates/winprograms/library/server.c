/*
 * A Linux library that Wine's server loads first, so that it leaves links alone.
 *
 * The server finds out where a link leads when a file is opened, and removes or renames that place
 * instead of the link. It takes the path as it is when realpath() only copies it. A link to a
 * directory is empty for it, so that it may be removed whatever it leads to, and rmdir() then
 * removes the link.
 *
 * Links that lead nowhere are not shown to programs by Wine, so a directory with nothing else is
 * empty, and they go with it.
 *
 * The server has one thread. The library links with nothing: all that it calls is in the C library.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NEXT(name) static __typeof__(&name) next; \
    if (!next) \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Which files were opened by the name of a link. */
enum { FILES = 1 << 20 };
static unsigned char opened[FILES / 8];
/* What is_dir_empty() reads when that is a link. */
static DIR *link_read;

static void mark(int file, int is_link)
{
    if (file < 0 || file >= FILES)
        return;
    if (is_link)
        opened[file / 8] |= 1 << file % 8;
    else
        opened[file / 8] &= ~(1 << file % 8);
}

static int is_marked(int file)
{
    return file >= 0 && file < FILES && (opened[file / 8] >> file % 8 & 1);
}

static int is_link(const char *path)
{
    struct stat stat;
    return lstat(path, &stat) == 0 && S_ISLNK(stat.st_mode);
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    int file = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (file >= 0)
        mark(file, is_link(path));
    return file;
}

EXPORT int dup(int file)
{
    int copy = syscall(SYS_dup, file);
    mark(copy, is_marked(file));
    return copy;
}

EXPORT DIR *fdopendir(int file)
{
    NEXT(fdopendir);
    int is = is_marked(file);
    DIR *directory = next ? next(file) : NULL;
    if (is)
        link_read = directory;
    return directory;
}

/* Whether an entry is a link that leads nowhere. */
static int dangles(DIR *directory, const struct dirent *entry)
{
    struct stat stat;
    int before = errno;
    int dangles = entry->d_type == DT_LNK
        && fstatat(dirfd(directory), entry->d_name, &stat, 0) == -1 && errno == ENOENT;
    errno = before;
    return dangles;
}

EXPORT struct dirent *readdir(DIR *directory)
{
    NEXT(readdir);
    if (!next || directory == link_read)
        return NULL;
    struct dirent *entry;
    while ((entry = next(directory)) && dangles(directory, entry))
        ;
    return entry;
}

EXPORT int closedir(DIR *directory)
{
    NEXT(closedir);
    if (directory == link_read)
        link_read = NULL;
    return next ? next(directory) : -1;
}

EXPORT char *realpath(const char *restrict path, char *restrict resolved)
{
    return resolved ? strcpy(resolved, path) : strdup(path);
}

/* Removes the links of a directory that lead nowhere. */
static void remove_dangling(const char *path)
{
    static struct dirent *(*next)(DIR *);
    if (!next)
        next = (struct dirent * (*)(DIR *))dlsym(RTLD_NEXT, "readdir");
    DIR *directory = next ? opendir(path) : NULL;
    if (!directory)
        return;
    struct dirent *entry;
    while ((entry = next(directory)))
        if (dangles(directory, entry))
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

EXPORT int rmdir(const char *path)
{
    if (syscall(SYS_rmdir, path) == 0)
        return 0;
    if (errno == ENOTDIR && is_link(path))
        return unlink(path);
    if (errno != ENOTEMPTY)
        return -1;
    remove_dangling(path);
    return syscall(SYS_rmdir, path);
}
