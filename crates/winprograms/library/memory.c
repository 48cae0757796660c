/*
 * A Linux library that Wine's processes of a container with a memory limit load first: it answers
 * for the container where Wine asks Linux how much memory the machine has.
 *
 * Wine asks sysinfo() for the size and reads /proc/meminfo for the rest. Both get the limit of the
 * container's cgroup as the size, and what its programs use; asked anew each time, so a limit that
 * is changed later counts. No other call is touched. It links with nothing: all that it calls is
 * in the C library that Wine has loaded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

typedef unsigned long long bytes;

#define NONE (~0ULL)
#define EXPORT __attribute__((visibility("default")))

struct memory {
    bytes total, free, available, swap_total, swap_free;
};

static bytes at_most(bytes a, bytes b)
{
    return a < b ? a : b;
}

static bytes less(bytes a, bytes b)
{
    return a > b ? a - b : 0;
}

/* The number after `key` in a file, or at its start; NONE when it is missing or no number. */
static bytes number(const char *path, const char *key)
{
    char text[8192];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return NONE;
    ssize_t size = 0, part;
    while (size < (ssize_t)sizeof(text) - 1
           && (part = read(file, text + size, sizeof(text) - 1 - size)) > 0)
        size += part;
    close(file);
    text[size] = 0;
    const char *at = text;
    if (*key) {
        size_t length = strlen(key);
        while (strncmp(at, key, length) != 0) {
            at = strchr(at, '\n');
            if (!at)
                return NONE;
            at++;
        }
        at += length;
    }
    while (*at == ' ')
        at++;
    if (*at < '0' || *at > '9')
        return NONE;
    bytes n = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        n = n > NONE / 16 ? NONE / 16 : 10 * n + (*at - '0');
    return n;
}

static bytes or_zero(bytes n)
{
    return n == NONE ? 0 : n;
}

static bytes of_host(const char *key)
{
    return or_zero(number("/proc/meminfo", key)) * 1024;
}

/* What the container may use; 0 when it may use all that the host has. */
static int limited(struct memory *memory)
{
    bytes host = of_host("MemTotal:"), host_swap = of_host("SwapTotal:");
    bytes limit = number("/sys/fs/cgroup/memory.max", ""), used, cache, swap, swap_used;
    if (limit != NONE) {
        used = number("/sys/fs/cgroup/memory.current", "");
        cache = number("/sys/fs/cgroup/memory.stat", "inactive_file ");
        swap = number("/sys/fs/cgroup/memory.swap.max", "");
        swap_used = number("/sys/fs/cgroup/memory.swap.current", "");
    } else {
        limit = number("/sys/fs/cgroup/memory/memory.limit_in_bytes", "");
        used = number("/sys/fs/cgroup/memory/memory.usage_in_bytes", "");
        cache = number("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file ");
        swap = number("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "");
        if (swap != NONE)
            swap = less(swap, limit);
        swap_used = number("/sys/fs/cgroup/memory/memory.stat", "total_swap ");
    }
    if (limit == NONE || !host || limit >= host)
        return 0;
    memory->total = limit;
    memory->free = at_most(less(limit, or_zero(used)), of_host("MemFree:"));
    memory->available = at_most(less(limit, less(or_zero(used), or_zero(cache))),
                                of_host("MemAvailable:"));
    memory->swap_total = at_most(swap, host_swap);
    memory->swap_free = at_most(less(memory->swap_total, or_zero(swap_used)), of_host("SwapFree:"));
    return 1;
}

EXPORT int sysinfo(struct sysinfo *info)
{
    struct memory memory;
    if (syscall(SYS_sysinfo, info) != 0)
        return -1;
    if (limited(&memory)) {
        /* Wine takes the number of the last page for their number. */
        info->totalram = (memory.total + getpagesize()) / info->mem_unit;
        info->freeram = memory.free / info->mem_unit;
        info->totalswap = memory.swap_total / info->mem_unit;
        info->freeswap = memory.swap_free / info->mem_unit;
    }
    return 0;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*next)(const char *, const char *);
    struct memory memory;
    if (path && strcmp(path, "/proc/meminfo") == 0 && limited(&memory)) {
        FILE *file = fmemopen(NULL, 512, "w+");
        if (file) {
            fprintf(file,
                    "MemTotal: %llu kB\nMemFree: %llu kB\nMemAvailable: %llu kB\n"
                    "SwapTotal: %llu kB\nSwapFree: %llu kB\n",
                    memory.total / 1024, memory.free / 1024, memory.available / 1024,
                    memory.swap_total / 1024, memory.swap_free / 1024);
            rewind(file);
            return file;
        }
    }
    if (!next)
        next = (FILE * (*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen");
    return next ? next(path, mode) : NULL;
}
