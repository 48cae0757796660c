/* robocopy: copies and mirrors directories; the exit code tells what was done, as on Windows. */
#include "common/walk.h"

enum { COPIED = 1, EXTRA = 2, MISMATCH = 4, FAILED = 8, FATAL = 16, MAX_PATTERNS = 64 };

static struct {
    BOOL below, empty, purge, move_files, move_all, list_only, no_files, no_directories, no_header,
        no_summary, same_too, no_older, no_newer, no_changed, only_existing, quiet;
    const WCHAR *files[MAX_PATTERNS], *no_file[MAX_PATTERNS], *no_directory[MAX_PATTERNS];
    unsigned file_count, no_file_count, no_directory_count;
    ULONGLONG retries, wait, max, min, depth;
} o = { .retries = 3, .wait = 1, .max = ~0ull, .depth = ~0ull };

static struct counts {
    ULONGLONG total, copied, skipped, mismatched, failed, extra;
} directories, files, bytes;
static HANDLE log_file;

static void say(const WCHAR *format, ...)
{
    va_list list;
    static WCHAR text[4096];
    va_start(list, format);
    _vsnwprintf(text, 4095, format, list);
    va_end(list);
    if (log_file) {
        static char line[12288];
        int n = WideCharToMultiByte(CP_UTF8, 0, text, -1, line, 12287, NULL, NULL);
        for (char *c = line; n > 1 && *c; c++) {
            if (*c == '\n')
                write_bytes(log_file, "\r", 1);
            write_bytes(log_file, c, 1);
        }
    } else {
        print_text(text);
    }
}

static void usage(void)
{
    print_text(
        L"ROBOCOPY source destination [file [file]...] [options]\n\n"
        L"  /S /E          Subdirectories; /E empty ones too     /LEV:n   Only n levels\n"
        L"  /PURGE /MIR    Removes what the source lacks; /MIR is /E /PURGE\n"
        L"  /MOV /MOVE     Moves files; /MOVE directories too\n"
        L"  /XF f... /XD d...   Leaves files, directories out\n"
        L"  /XO /XN /XC /XX /XL /IS   Older, newer, changed, extra, lonely files left out; same too\n"
        L"  /MAX:n /MIN:n  Sizes in bytes                        /L       Only lists\n"
        L"  /R:n /W:n      Tries again n times, after n seconds (3, 1)\n"
        L"  /LOG:file /NFL /NDL /NJH /NJS /NP /NC /NS /MT /Z /B /J /COPY:x /DCOPY:x are taken.\n\n"
        L"Exit code: 1 copied, 2 extra files there, 4 mismatches, 8 failures, 16 nothing done.\n");
}

static BOOL any(const WCHAR *name, const WCHAR *path, const WCHAR **patterns, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (matches(name, patterns[i]) || (wcschr(patterns[i], '\\') && matches(path, patterns[i])))
            return TRUE;
    return FALSE;
}

static void failure(const WCHAR *what, const WCHAR *path)
{
    DWORD error = GetLastError();
    say(L"ERROR %lu (0x%08lX) %s %s\n%s\n", error, error, what, path, error_text(error));
}

static BOOL remove_all(const WCHAR *path)
{
    for (struct entries e = entries_of(path); next_entry(&e);) {
        SetFileAttributesW(e.path, FILE_ATTRIBUTE_NORMAL);
        if (is_own_directory(e.data.dwFileAttributes))
            remove_all(e.path);
        else if (is_directory(e.data.dwFileAttributes))
            RemoveDirectoryW(e.path);
        else
            DeleteFileW(e.path);
    }
    return RemoveDirectoryW(path);
}

/* Copies one file; -1 when it is left out, 0 on failure. */
static int copy_one(const WCHAR *from, const WCHAR *to, const WIN32_FIND_DATAW *data, ULONGLONG size)
{
    WIN32_FILE_ATTRIBUTE_DATA there;
    const WCHAR *kind = L"New File";
    if (GetFileAttributesExW(to, GetFileExInfoStandard, &there)) {
        if (there.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) {
            files.mismatched++;
            return -1;
        }
        ULONGLONG old = file_time(&there.ftLastWriteTime), new = file_time(&data->ftLastWriteTime);
        ULONGLONG old_size = ((ULONGLONG)there.nFileSizeHigh << 32) | there.nFileSizeLow;
        kind = new > old ? L"Newer" : new < old ? L"Older" : size != old_size ? L"Changed" : L"Same";
        if ((new == old && size == old_size && !o.same_too) || (new < old && o.no_older)
            || (new > old && o.no_newer) || (new == old && size != old_size && o.no_changed))
            return -1;
    } else if (o.only_existing) {
        return -1;
    }
    if (!o.no_files)
        say(L"\t    %-8s  \t\t%I64u\t%s\n", kind, size, data->cFileName);
    if (o.list_only)
        return 1;
    for (ULONGLONG tries = 0;; tries++) {
        if (CopyFileW(from, to, FALSE)) {
            SetFileAttributesW(to, data->dwFileAttributes);
            HANDLE handle = CreateFileW(to, FILE_WRITE_ATTRIBUTES, 7, NULL, OPEN_EXISTING, 0, NULL);
            if (handle != INVALID_HANDLE_VALUE) {
                SetFileTime(handle, &data->ftCreationTime, NULL, &data->ftLastWriteTime);
                CloseHandle(handle);
            }
            return 1;
        }
        if (GetLastError() == ERROR_ACCESS_DENIED)
            SetFileAttributesW(to, FILE_ATTRIBUTE_NORMAL);
        failure(L"Copying File", from);
        if (tries >= o.retries)
            return 0;
        say(L"Waiting %I64u seconds... Retrying...\n", o.wait);
        Sleep((DWORD)o.wait * 1000);
    }
}

static void purge(const WCHAR *from, const WCHAR *to)
{
    for (struct entries e = entries_of(to); next_entry(&e);) {
        const WIN32_FIND_DATAW *data = &e.data;
        WCHAR *source = join(from, data->cFileName);
        BOOL folder = is_directory(data->dwFileAttributes);
        BOOL out = folder ? any(data->cFileName, source, o.no_directory, o.no_directory_count)
                          : any(data->cFileName, source, o.no_file, o.no_file_count);
        if (!out && GetFileAttributesW(source) == INVALID_FILE_ATTRIBUTES) {
            (folder ? &directories : &files)->extra++;
            if (folder ? !o.no_directories : !o.no_files)
                say(L"\t  *EXTRA %s  \t\t%s\n", folder ? L"Dir" : L"File", e.path);
            if (o.purge && !o.list_only) {
                SetFileAttributesW(e.path, FILE_ATTRIBUTE_NORMAL);
                if (is_own_directory(data->dwFileAttributes) ? !remove_all(e.path)
                        : folder ? !RemoveDirectoryW(e.path) : !DeleteFileW(e.path)) {
                    failure(L"Deleting Extra", e.path);
                    files.failed++;
                }
            }
        }
        release(source);
    }
}

static BOOL has_nothing(const WCHAR *directory)
{
    struct entries e = entries_of(directory);
    BOOL nothing = !next_entry(&e);
    end_entries(&e);
    return nothing;
}

static void copy_directory(const WCHAR *from, const WCHAR *to, ULONGLONG depth)
{
    directories.total++;
    BOOL is_new = GetFileAttributesW(to) == INVALID_FILE_ATTRIBUTES;
    if (!o.no_directories)
        say(L"\t  %-8s\t\t%s\\\n", is_new ? L"New Dir" : L"", from);
    if (is_new)
        directories.copied++;
    else
        directories.skipped++;
    if (is_new && !o.list_only && !CreateDirectoryW(to, NULL)) {
        failure(L"Creating Destination Directory", to);
        directories.failed++;
        return;
    }
    if (!is_new)
        purge(from, to);
    struct entries e = entries_of(from);
    if (e.find == INVALID_HANDLE_VALUE) {
        failure(L"Accessing Source Directory", from);
        directories.failed++;
        return;
    }
    while (next_entry(&e)) {
        const WIN32_FIND_DATAW *data = &e.data;
        WCHAR *target = join(to, data->cFileName);
        ULONGLONG size = file_size(data);
        if (!is_directory(data->dwFileAttributes)) {
            files.total++;
            bytes.total += size;
            int done = -1;
            if (any(data->cFileName, e.path, o.files, o.file_count)
                && !any(data->cFileName, e.path, o.no_file, o.no_file_count) && size <= o.max
                && size >= o.min)
                done = copy_one(e.path, target, data, size);
            (*(done > 0 ? &files.copied : done ? &files.skipped : &files.failed))++;
            *(done > 0 ? &bytes.copied : done ? &bytes.skipped : &bytes.failed) += size;
            if (done > 0 && (o.move_files || o.move_all) && !o.list_only)
                DeleteFileW(e.path);
        } else if (o.below && depth < o.depth
                   && !any(data->cFileName, e.path, o.no_directory, o.no_directory_count)
                   && (o.empty || !has_nothing(e.path))) {
            copy_directory(e.path, target, depth + 1);
        }
        release(target);
    }
    if (o.move_all && !o.list_only)
        RemoveDirectoryW(from);
}

static void summary_line(const WCHAR *name, const struct counts *c)
{
    say(L"%s%10I64u%10I64u%10I64u%10I64u%10I64u%10I64u\n", name, c->total, c->copied, c->skipped,
        c->mismatched, c->failed, c->extra);
}

int program(int argc, WCHAR **argv)
{
    static const WCHAR *ignored[] = { L"np",  L"nc", L"ns",   L"z",   L"b",    L"zb",  L"j",    L"mt",
                                      L"fft", L"dst", L"bytes", L"ts", L"fp",  L"x",   L"v",    L"tee",
                                      L"eta", L"it", L"copyall", L"nocopy", L"unicode", L"sec", L"xj",
                                      L"xjd", L"xjf", L"a", L"nooffload", L"compress", L"reg" };
    const WCHAR *from = NULL, *to = NULL, **list = NULL, *value;
    unsigned *list_count = NULL;
    for (int i = 1; i < argc; i++) {
        const WCHAR *a = argv[i];
        ULONGLONG *number = NULL;
        if (*a != '/' && !(*a == '-' && from)) {
            if (list && *list_count < MAX_PATTERNS)
                list[(*list_count)++] = a;
            else if (!from)
                from = a;
            else if (!to)
                to = a;
            else if (o.file_count < MAX_PATTERNS)
                o.files[o.file_count++] = a;
            continue;
        }
        list = NULL;
        if (is_option(a, L"?")) {
            usage();
            return FATAL;
        } else if (is_option(a, L"s")) o.below = TRUE;
        else if (is_option(a, L"e")) o.below = o.empty = TRUE;
        else if (is_option(a, L"purge")) o.purge = TRUE;
        else if (is_option(a, L"mir")) o.below = o.empty = o.purge = TRUE;
        else if (is_option(a, L"mov")) o.move_files = TRUE;
        else if (is_option(a, L"move")) o.move_all = TRUE;
        else if (is_option(a, L"l")) o.list_only = TRUE;
        else if (is_option(a, L"nfl")) o.no_files = TRUE;
        else if (is_option(a, L"ndl")) o.no_directories = TRUE;
        else if (is_option(a, L"njh")) o.no_header = TRUE;
        else if (is_option(a, L"njs")) o.no_summary = TRUE;
        else if (is_option(a, L"is")) o.same_too = TRUE;
        else if (is_option(a, L"xo")) o.no_older = TRUE;
        else if (is_option(a, L"xn")) o.no_newer = TRUE;
        else if (is_option(a, L"xc")) o.no_changed = TRUE;
        else if (is_option(a, L"xl")) o.only_existing = TRUE;
        else if (is_option(a, L"xx")) o.purge = FALSE;
        else if (is_option(a, L"xf")) { list = o.no_file; list_count = &o.no_file_count; }
        else if (is_option(a, L"xd")) { list = o.no_directory; list_count = &o.no_directory_count; }
        else if ((value = option_value(a, L"r"))) number = &o.retries;
        else if ((value = option_value(a, L"w"))) number = &o.wait;
        else if ((value = option_value(a, L"lev"))) number = &o.depth;
        else if ((value = option_value(a, L"max"))) number = &o.max;
        else if ((value = option_value(a, L"min"))) number = &o.min;
        else if ((value = option_value(a, L"log")) || (value = option_value(a, L"unilog"))
                 || (value = option_value(a, L"log+"))) {
            BOOL more = wcschr(a, '+') != NULL;
            log_file = CreateFileW(value, GENERIC_WRITE, FILE_SHARE_READ, NULL,
                                   more ? OPEN_ALWAYS : CREATE_ALWAYS, 0, NULL);
            if (log_file == INVALID_HANDLE_VALUE) {
                log_file = NULL;
                failure(L"Opening Log", value);
                return FATAL;
            }
            if (more)
                SetFilePointer(log_file, 0, NULL, FILE_END);
        } else if (!option_value(a, L"copy") && !option_value(a, L"dcopy") && !option_value(a, L"mt")
                   && !option_value(a, L"ipg")) {
            unsigned k = 0;
            while (k < sizeof(ignored) / sizeof(*ignored) && !is_option(a, ignored[k]))
                k++;
            if (k == sizeof(ignored) / sizeof(*ignored)) {
                say(L"ERROR : Invalid Parameter #%d : \"%s\"\nor not supported here.\n", i, a);
                return FATAL;
            }
        }
        if (number && !parse_number(value, number)) {
            say(L"ERROR : Invalid Parameter #%d : \"%s\"\n", i, a);
            return FATAL;
        }
    }
    if (!from || !to) {
        say(L"ERROR : No %s Directory Specified.\n", from ? L"Destination" : L"Source");
        return FATAL;
    }
    if (!o.file_count)
        o.files[o.file_count++] = L"*.*";
    static WCHAR source[4096], target[4096];
    GetFullPathNameW(from, 4095, source, NULL);
    GetFullPathNameW(to, 4095, target, NULL);
    for (WCHAR *p = source;; p = target) {
        size_t n = wcslen(p);
        while (n > 3 && p[n - 1] == '\\')
            p[--n] = 0;
        if (p == target)
            break;
    }
    if (!o.no_header)
        say(L"\n-----------------------------------------------------------------------------\n"
            L"   ROBOCOPY     ::     Robust File Copy for Windows\n"
            L"-----------------------------------------------------------------------------\n\n"
            L"   Source : %s\\\n     Dest : %s\\\n\n", source, target);
    DWORD attributes = GetFileAttributesW(source);
    if (attributes == INVALID_FILE_ATTRIBUTES || !(attributes & FILE_ATTRIBUTE_DIRECTORY)) {
        if (attributes != INVALID_FILE_ATTRIBUTES)
            SetLastError(ERROR_DIRECTORY);
        failure(L"Accessing Source Directory", source);
        return FATAL;
    }
    for (WCHAR *c = target + 3; !o.list_only && (c = wcschr(c, '\\')); c++) {
        *c = 0;
        CreateDirectoryW(target, NULL);
        *c = '\\';
    }
    copy_directory(source, target, 1);
    if (!o.no_summary) {
        say(L"\n------------------------------------------------------------------------------\n\n"
            L"               Total    Copied   Skipped  Mismatch    FAILED    Extras\n");
        summary_line(L"    Dirs :", &directories);
        summary_line(L"   Files :", &files);
        summary_line(L"   Bytes :", &bytes);
    }
    return (files.copied || directories.copied ? COPIED : 0)
        | (files.extra || directories.extra ? EXTRA : 0) | (files.mismatched ? MISMATCH : 0)
        | (files.failed || directories.failed ? FAILED : 0);
}
