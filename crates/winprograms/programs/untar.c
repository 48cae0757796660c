/* Reading tar and gzip, and making what an archive holds. */
#include "inflate.h"
#include "tar.h"

/* ---- entries ---- */

static HANDLE out;
static WCHAR *out_path;
static LONGLONG out_time;
static BOOL skipping;

struct dated {
    struct dated *next;
    WCHAR *path;
    LONGLONG time;
};
static struct dated *dated;

static FILETIME file_time(LONGLONG seconds)
{
    ULONGLONG ticks = (ULONGLONG)(seconds + 11644473600ll) * 10000000ull;
    return (FILETIME){ (DWORD)ticks, (DWORD)(ticks >> 32) };
}

/*
 * The path to make for a name: relative, with backslashes, without ".." and without letters that
 * Windows does not allow. NULL when nothing is left or when the name leads outside.
 */
static WCHAR *safe_path(const WCHAR *name, unsigned strip)
{
    WCHAR *path = allocate((wcslen(name) + 1) * sizeof(WCHAR)), *to = path;
    if (name[0] && name[1] == ':')
        name += 2;
    while (*name) {
        while (*name == '/' || *name == '\\')
            name++;
        size_t n = 0;
        while (name[n] && name[n] != '/' && name[n] != '\\')
            n++;
        if (n == 2 && name[0] == '.' && name[1] == '.') {
            warn(L"%s: Path contains '..'", name, NULL);
            release(path);
            return NULL;
        }
        if (n && !(n == 1 && *name == '.')) {
            if (strip) {
                strip--;
            } else {
                if (to != path)
                    *to++ = '\\';
                for (size_t i = 0; i < n; i++)
                    *to++ = name[i] < 32 || wcschr(L"<>:\"|?*", name[i]) ? '_' : name[i];
            }
        }
        name += n;
    }
    *to = 0;
    if (to == path) {
        release(path);
        return NULL;
    }
    return path;
}

static BOOL make_directories(WCHAR *path, BOOL last_too)
{
    for (WCHAR *c = path; (c = wcschr(c, '\\')); c++) {
        *c = 0;
        CreateDirectoryW(path, NULL);
        *c = '\\';
    }
    return !last_too || CreateDirectoryW(path, NULL) || GetLastError() == ERROR_ALREADY_EXISTS;
}

static BOOL wanted(const WCHAR *name)
{
    if (excluded(name))
        return FALSE;
    if (!options.name_count)
        return TRUE;
    for (int i = 0; i < options.name_count; i++) {
        const WCHAR *pattern = options.names[i];
        size_t n = wcslen(pattern);
        while (n && (pattern[n - 1] == '/' || pattern[n - 1] == '\\'))
            n--;
        if (matches(name, pattern)
            || (!_wcsnicmp(name, pattern, n) && (!name[n] || name[n] == '/')))
            return TRUE;
    }
    return FALSE;
}

static void list(const struct entry *e)
{
    if (!options.verbose) {
        print(L"%s\n", e->name);
        return;
    }
    static const WCHAR *months[] = { L"Jan", L"Feb", L"Mar", L"Apr", L"May", L"Jun",
                                     L"Jul", L"Aug", L"Sep", L"Oct", L"Nov", L"Dec" };
    FILETIME t = file_time(e->time), local;
    SYSTEMTIME s = { .wMonth = 1 };
    FileTimeToLocalFileTime(&t, &local);
    FileTimeToSystemTime(&local, &s);
    print(L"%s  0 0      0    %11I64u %s %2u  %u %s%s%s\n",
          e->type == '5'       ? L"drwxr-xr-x"
              : e->type == '2' ? L"lrwxr-xr-x"
                               : L"-rw-r--r--",
          e->size, months[s.wMonth - 1], s.wDay, s.wYear, e->name, e->type == '2' ? L" -> " : L"",
          e->type == '2' ? e->target : L"");
}

void entry_begin(const struct entry *e)
{
    skipping = TRUE;
    out = INVALID_HANDLE_VALUE;
    if (!wanted(e->name))
        return;
    if (options.mode == LIST) {
        list(e);
        return;
    }
    if (options.to_stdout) {
        if (e->type == '0') {
            out = GetStdHandle(STD_OUTPUT_HANDLE);
            skipping = FALSE;
        }
        return;
    }
    WCHAR *path = safe_path(e->name, options.strip);
    if (!path)
        return;
    if (options.verbose)
        complain(L"x %s\n", e->name);
    if (e->type == '5') {
        if (!make_directories(path, TRUE))
            warn(L"%s: %s", path, error_text(GetLastError()));
        struct dated *d = allocate(sizeof(*d));
        *d = (struct dated){ dated, path, e->time };
        dated = d;
        return;
    }
    make_directories(path, FALSE);
    if (options.keep_old && GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES) {
        release(path);
        return;
    }
    if (e->type == '1') {
        WCHAR *target = safe_path(e->target, options.strip);
        DeleteFileW(path);
        if (!target || !CreateHardLinkW(path, target, NULL))
            warn(L"%s: Can't create hard link: %s", path, error_text(GetLastError()));
        release(target);
        release(path);
        return;
    }
    if (e->type != '0') {
        warn(e->type == '2' ? L"%s: symbolic links cannot be made here (to %s)"
                            : L"%s: neither file nor directory, left out",
             path, e->target);
        release(path);
        return;
    }
    out = CreateFileW(path, GENERIC_WRITE | FILE_WRITE_ATTRIBUTES, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (out == INVALID_HANDLE_VALUE) {
        warn(L"%s: Can't create: %s", path, error_text(GetLastError()));
        release(path);
        return;
    }
    out_path = path;
    out_time = e->time;
    skipping = FALSE;
}

BOOL entry_data(const unsigned char *data, size_t size)
{
    if (skipping)
        return TRUE;
    DWORD done;
    while (size) {
        if (!WriteFile(out, data, size, &done, NULL)) {
            warn(L"%s: Write failed: %s", out_path ? out_path : L"-", error_text(GetLastError()));
            return FALSE;
        }
        data += done;
        size -= done;
    }
    return TRUE;
}

void entry_end(void)
{
    if (skipping || options.to_stdout)
        return;
    if (!options.no_times) {
        FILETIME t = file_time(out_time);
        SetFileTime(out, NULL, NULL, &t);
    }
    CloseHandle(out);
    release(out_path);
    out_path = NULL;
}

void entries_done(void)
{
    for (; dated; dated = dated->next) {
        HANDLE handle = CreateFileW(dated->path, FILE_WRITE_ATTRIBUTES, 7, NULL, OPEN_EXISTING,
                                    FILE_FLAG_BACKUP_SEMANTICS, NULL);
        FILETIME t = file_time(dated->time);
        if (handle != INVALID_HANDLE_VALUE && !options.no_times)
            SetFileTime(handle, NULL, NULL, &t);
        CloseHandle(handle);
    }
}

/* ---- tar ---- */

enum { RECORDS_LIMIT = 1 << 20 };

static unsigned char header[512];
static size_t have;
static ULONGLONG left, padding;
static unsigned zero_blocks;
static char *collected; /* of a pax header or a GNU long name */
static size_t collected_size;
static char collecting; /* its type */
static BOOL in_entry, broken;
static WCHAR *next_name, *next_target;
static ULONGLONG next_size;
static BOOL has_next_size, any;

static ULONGLONG octal(const unsigned char *field, unsigned width)
{
    ULONGLONG value = 0;
    if (*field & 0x80) { /* GNU: a big-endian number */
        for (unsigned i = 1; i < width; i++)
            value = value << 8 | field[i];
        return value;
    }
    for (unsigned i = 0; i < width && (field[i] == ' ' || (field[i] >= '0' && field[i] <= '7')); i++)
        if (field[i] != ' ')
            value = value << 3 | (field[i] - '0');
    return value;
}

static WCHAR *field_text(const unsigned char *field, size_t width)
{
    size_t n = 0;
    while (n < width && field[n])
        n++;
    return wide_text((const char *)field, (int)n, CP_UTF8);
}

static void use_collected(void)
{
    if (collecting == 'L' || collecting == 'K') {
        WCHAR **to = collecting == 'L' ? &next_name : &next_target;
        release(*to);
        *to = wide_text(collected, -1, CP_UTF8);
        return;
    }
    for (char *record = collected, *end = collected + collected_size; record < end;) {
        char *space;
        size_t length = strtoul(record, &space, 10);
        if (length < 4 || length > (size_t)(end - record) || *space != ' ')
            break;
        record[length - 1] = 0;
        char *key = space + 1, *value = strchr(key, '=');
        if (value) {
            *value++ = 0;
            if (!strcmp(key, "path")) {
                release(next_name);
                next_name = wide_text(value, -1, CP_UTF8);
            } else if (!strcmp(key, "linkpath")) {
                release(next_target);
                next_target = wide_text(value, -1, CP_UTF8);
            } else if (!strcmp(key, "size")) {
                next_size = _strtoui64(value, NULL, 10);
                has_next_size = TRUE;
            }
        }
        record += length;
    }
}

static BOOL use_header(void)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? ' ' : header[i];
    if (sum == 8 * ' ') {
        zero_blocks++;
        return TRUE;
    }
    zero_blocks = 0;
    if (octal(header + 148, 8) != sum) {
        complain(any ? L"tar: Damaged tar archive\n" : L"tar: Error opening archive: Unrecognized archive format\n");
        options.result = 1;
        return FALSE;
    }
    any = TRUE;
    char type = header[156] ? header[156] : '0';
    left = octal(header + 124, 12);
    if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
        if (left > RECORDS_LIMIT) {
            complain(L"tar: a header of %I64u bytes is too long\n", left);
            options.result = 1;
            return FALSE;
        }
        release(collected);
        collected = allocate((size_t)left + 1);
        collected_size = 0;
        collecting = type;
        padding = (512 - left % 512) % 512;
        return TRUE;
    }
    struct entry e = { .type = type == '7' ? '0' : type, .time = (LONGLONG)octal(header + 136, 12) };
    e.name = next_name ? next_name : field_text(header, 100);
    if (!next_name && !memcmp(header + 257, "ustar", 5) && header[262] == 0 && header[345]) {
        WCHAR *prefix = field_text(header + 345, 155), *whole = format_text(L"%s/%s", prefix, e.name);
        release(prefix);
        release(e.name);
        e.name = whole;
    }
    e.target = next_target ? next_target : field_text(header + 157, 100);
    if (has_next_size)
        left = next_size;
    if (type == '1' || type == '2' || type == '5')
        left = 0;
    e.size = left;
    size_t n = wcslen(e.name);
    if (e.type == '0' && n && e.name[n - 1] == '/')
        e.type = '5';
    padding = (512 - left % 512) % 512;
    entry_begin(&e);
    release(e.name);
    release(e.target);
    next_name = next_target = NULL;
    has_next_size = FALSE;
    in_entry = TRUE;
    return TRUE;
}

static void end_of_data(void)
{
    if (in_entry)
        entry_end();
    in_entry = FALSE;
    if (collecting && collecting != 'g')
        use_collected();
    collecting = 0;
}

static BOOL feed(void *context, const unsigned char *data, size_t size)
{
    (void)context;
    while (size && zero_blocks < 2) {
        size_t n = size;
        if (left) {
            n = (size_t)min((ULONGLONG)n, left);
            if (collecting) {
                memcpy(collected + collected_size, data, n);
                collected_size += n;
            } else if (!entry_data(data, n)) {
                broken = TRUE;
                return FALSE;
            }
            left -= n;
            if (!left)
                end_of_data();
        } else if (padding) {
            n = (size_t)min((ULONGLONG)n, padding);
            padding -= n;
        } else {
            n = min(n, 512 - have);
            memcpy(header + have, data, n);
            have += n;
            if (have == 512) {
                have = 0;
                if (!use_header()) {
                    broken = TRUE;
                    return FALSE;
                }
                if (!left)
                    end_of_data();
            }
        }
        data += n;
        size -= n;
    }
    return TRUE;
}

static unsigned char first[512];
static size_t first_size, first_at;

static size_t read_input(void *context, unsigned char *buffer, size_t size)
{
    if (first_at < first_size) {
        size = min(size, first_size - first_at);
        memcpy(buffer, first + first_at, size);
        first_at += size;
        return size;
    }
    DWORD n;
    return ReadFile(context, buffer, size, &n, NULL) ? n : 0;
}

static void read_gzip(HANDLE file)
{
    struct inflate *s = allocate(sizeof(*s));
    s->read = read_input;
    s->write = feed;
    s->context = file;
    /* Several members follow one another as one. */
    for (int byte = inflate_byte(s); byte == 0x1f; byte = inflate_byte(s)) {
        inflate_byte(s);
        inflate_byte(s);
        int flags = inflate_byte(s);
        for (int i = 0; i < 6; i++)
            inflate_byte(s);
        if (flags & 4) {
            int n = inflate_byte(s);
            n |= inflate_byte(s) << 8;
            while (n-- > 0)
                inflate_byte(s);
        }
        for (int bit = 8; bit <= 16; bit *= 2)
            while ((flags & bit) && (byte = inflate_byte(s)) > 0)
                ;
        if (flags & 2) {
            inflate_byte(s);
            inflate_byte(s);
        }
        if (!inflate_stream(s)) {
            if (!broken) {
                complain(L"tar: Truncated or damaged gzip data\n");
                broken = TRUE;
            }
            return;
        }
        for (int i = 0; i < 8; i++)
            inflate_byte(s);
    }
}

void read_archive(HANDLE file)
{
    static const struct {
        const char *magic;
        unsigned size;
        const WCHAR *name;
    } unknown[] = { { "BZh", 3, L"bzip2" }, { "\xfd" "7zXZ", 5, L"xz" }, { "(\xb5/\xfd", 4, L"zstd" },
                    { "7z\xbc\xaf", 4, L"7-Zip" }, { "Rar!", 4, L"RAR" }, { "MSCF", 4, L"cabinet" } };
    DWORD n;
    while (first_size < 512 && ReadFile(file, first + first_size, 512 - first_size, &n, NULL) && n)
        first_size += n;
    for (unsigned i = 0; i < 6; i++)
        if (first_size >= unknown[i].size && !memcmp(first, unknown[i].magic, unknown[i].size)) {
            complain(L"tar: Error opening archive: %s is not supported\n", unknown[i].name);
            options.result = 1;
            return;
        }
    if (first_size >= 4 && !memcmp(first, "PK", 2) && (first[2] == 3 || first[2] == 5)) {
        read_zip(file);
    } else {
        if (first_size >= 2 && first[0] == 0x1f && first[1] == 0x8b) {
            read_gzip(file);
        } else {
            static unsigned char buffer[65536];
            size_t size;
            while (!broken && (size = read_input(file, buffer, sizeof(buffer))))
                feed(NULL, buffer, size);
        }
        if (!broken && (left || have || !any) && zero_blocks < 2) {
            complain(L"tar: Truncated or empty archive\n");
            broken = TRUE;
        }
        if (broken)
            options.result = 1;
    }
    entries_done();
}
