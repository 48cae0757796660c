/* tar: packs and unpacks tar, tar.gz and zip, as Windows' tar (bsdtar) does. */
#include "deflate.h"
#include "inflate.h"
#include "common/walk.h"
#include "tar.h"

enum { MAX_DIRECTORIES = 32 };

struct options options;
/* Of -C: gone to when the archive, whose path is relative to where we start, is open. */
static const WCHAR *directories[MAX_DIRECTORIES];
static int directory_count;

void warn(const WCHAR *format, const WCHAR *name, const WCHAR *why)
{
    WCHAR *text = format_text(format, name, why);
    complain(L"tar: %s\n", text);
    release(text);
    options.result = 1;
}

static BOOL change_directories(void)
{
    for (int i = 0; i < directory_count; i++)
        if (!SetCurrentDirectoryW(directories[i])) {
            warn(L"could not chdir to '%s': %s", directories[i], error_text(GetLastError()));
            return FALSE;
        }
    return TRUE;
}

static void usage(void)
{
    print_text(L"tar -c [-avz] [-f archive] [-C dir] [--exclude pattern] name...\n"
               L"tar -x [-kmOvz] [-f archive] [-C dir] [--strip-components n] [pattern...]\n"
               L"tar -t [-v] [-f archive] [pattern...]\n\n"
               L"  -c  packs    -x  unpacks    -t  lists    -r, -u are not supported\n"
               L"  -f archive   the file; - is standard input or output\n"
               L"  -C dir       goes there first\n"
               L"  -z           gzip; found out by itself when reading\n"
               L"  -a           by the archive's name: .zip, .tar.gz, .tgz\n"
               L"  -v           names each entry    -O  unpacks to standard output\n"
               L"  -k           keeps files that are there    -m  does not set times\n"
               L"  --exclude p, --strip-components n, --format zip|ustar|pax\n\n"
               L"Reads tar (ustar, pax, GNU), gzip and zip; bzip2, xz and zstd are not supported.\n");
}

BOOL excluded(const WCHAR *name)
{
    for (unsigned i = 0; i < options.excludes; i++) {
        const WCHAR *pattern = options.exclude[i];
        if (matches(name, pattern))
            return TRUE;
        for (const WCHAR *c = name; *c; c++)
            if (*c == '/' && matches(c + 1, pattern))
                return TRUE;
        size_t n = wcslen(pattern);
        for (const WCHAR *c = name; (c = wcschr(c, '/')); c++) { /* below an excluded directory */
            if ((size_t)(c - name) >= n && !_wcsnicmp(c - n, pattern, n)
                && (c - n == name || c[-(ptrdiff_t)n - 1] == '/'))
                return TRUE;
        }
    }
    return FALSE;
}

/* ---- packing ---- */

static HANDLE output;
static struct deflate *packer;
static uint32_t check_sum;
static ULONGLONG written, member_size;

static BOOL write_raw(void *context, const unsigned char *data, size_t size)
{
    DWORD done;
    (void)context;
    written += size;
    while (size) {
        if (!WriteFile(output, data, size, &done, NULL)) {
            complain(L"tar: Write error: %s\n", error_text(GetLastError()));
            ExitProcess(1);
        }
        data += done;
        size -= done;
    }
    return TRUE;
}

static void write_member(const void *data, size_t size)
{
    check_sum = crc32_of(check_sum, data, size);
    member_size += size;
    if (packer)
        deflate_add(packer, data, size, FALSE);
    else
        write_raw(NULL, data, size);
}

static struct deflate *new_packer(void)
{
    struct deflate *made = allocate(sizeof(*made));
    made->write = write_raw;
    return made;
}

static void begin_gzip(void)
{
    static const unsigned char header[10] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 10 };
    write_raw(NULL, header, 10);
    packer = new_packer();
    check_sum = 0;
    member_size = 0;
}

static void end_gzip(void)
{
    deflate_add(packer, NULL, 0, TRUE);
    uint32_t tail[2] = { check_sum, (uint32_t)member_size };
    write_raw(NULL, (unsigned char *)tail, 8);
}

static void octal(char *field, unsigned width, ULONGLONG value)
{
    for (unsigned i = width - 1; i--; value >>= 3)
        field[i] = '0' + (value & 7);
}

static char *utf8(const WCHAR *text)
{
    int n = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *bytes = allocate(n + 1);
    WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, n, NULL, NULL);
    return bytes;
}

static void tar_header(const char *name, char type, ULONGLONG size, LONGLONG time)
{
    char header[512] = { 0 };
    size_t n = strlen(name);
    if (n <= 100) {
        memcpy(header, name, n);
    } else {
        memcpy(header, name, 100); /* the whole name stands in a pax record before it */
    }
    memcpy(header + 100, type == '5' ? "0000755" : "0000644", 7);
    octal(header + 108, 8, 0);
    octal(header + 116, 8, 0);
    octal(header + 124, 12, size < 1ull << 33 ? size : 0);
    octal(header + 136, 12, time > 0 ? time : 0);
    header[156] = type;
    memcpy(header + 257, "ustar\0" "00", 8);
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += (unsigned char)header[i];
    octal(header + 148, 7, sum);
    header[154] = 0;
    write_member(header, 512);
}

static void pad(ULONGLONG size)
{
    static const char zeros[512];
    if (size % 512)
        write_member(zeros, 512 - size % 512);
}

static char *pax_record(char *to, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3, length = rest + 1;
    char digits[24];
    for (int i = 0; i < 3; i++) {
        _snprintf(digits, 23, "%Iu", length);
        length = rest + strlen(digits);
    }
    return to + _snprintf(to, length + 1, "%Iu %s=%s\n", length, key, value);
}

static void tar_entry_header(const char *name, char type, ULONGLONG size, LONGLONG time)
{
    if (strlen(name) > 100 || size >= 1ull << 33) {
        char *records = allocate(strlen(name) + 128), *end = records, number[24];
        if (strlen(name) > 100)
            end = pax_record(end, "path", name);
        if (size >= 1ull << 33) {
            _snprintf(number, 23, "%I64u", size);
            end = pax_record(end, "size", number);
        }
        tar_header("PaxHeader/entry", 'x', end - records, time);
        write_member(records, end - records);
        pad(end - records);
        release(records);
    }
    tar_header(name, type, size, time);
}

/* ---- zip ---- */

static unsigned char *directory; /* the central directory as it grows */
static size_t directory_size, directory_room;
static unsigned zip_count;

static void little(unsigned char *at, uint32_t value, unsigned bytes)
{
    while (bytes--) {
        *at++ = (unsigned char)value;
        value >>= 8;
    }
}

static uint32_t dos_time(LONGLONG time)
{
    FILETIME file, local;
    WORD date, clock;
    ULONGLONG ticks = (time + 11644473600ll) * 10000000ll;
    file.dwLowDateTime = (DWORD)ticks;
    file.dwHighDateTime = ticks >> 32;
    if (!FileTimeToLocalFileTime(&file, &local) || !FileTimeToDosDateTime(&local, &date, &clock))
        return 0x210000;
    return (uint32_t)date << 16 | clock;
}

static void zip_begin(const char *name, BOOL is_directory, LONGLONG time, unsigned char record[46])
{
    unsigned char local[30] = { 'P', 'K', 3, 4 };
    size_t n = strlen(name);
    memset(record, 0, 46);
    memcpy(record, "PK\1\2", 4);
    little(record + 4, 20, 2);
    little(record + 6, 20, 2);
    little(record + 8, is_directory ? 0x800 : 0x808, 2); /* UTF-8; sizes follow the data */
    little(record + 10, is_directory ? 0 : 8, 2);
    little(record + 12, dos_time(time), 4);
    little(record + 28, n, 2);
    little(record + 38, is_directory ? 0x10 : 0x20, 4);
    little(record + 42, (uint32_t)written, 4);
    memcpy(local + 4, record + 6, 10);
    memcpy(local + 26, record + 28, 2);
    write_raw(NULL, local, 30);
    write_raw(NULL, (const unsigned char *)name, n);
    check_sum = 0;
    member_size = 0;
    packer = is_directory ? NULL : new_packer();
}

static void zip_end(const char *name, unsigned char record[46], ULONGLONG start)
{
    size_t n = strlen(name);
    if (packer) {
        deflate_add(packer, NULL, 0, TRUE);
        release(packer);
        packer = NULL;
        ULONGLONG packed = written - start;
        if (packed >= 0xffffffff || member_size >= 0xffffffff) {
            complain(L"tar: a file is too big for zip; use tar.gz\n");
            ExitProcess(1);
        }
        little(record + 16, check_sum, 4);
        little(record + 20, (uint32_t)packed, 4);
        little(record + 24, (uint32_t)member_size, 4);
        unsigned char descriptor[16] = { 'P', 'K', 7, 8 };
        memcpy(descriptor + 4, record + 16, 12);
        write_raw(NULL, descriptor, 16);
    }
    if (directory_size + 46 + n > directory_room) {
        unsigned char *more = allocate(directory_room = (directory_room + 46 + n) * 2);
        memcpy(more, directory, directory_size);
        release(directory);
        directory = more;
    }
    memcpy(directory + directory_size, record, 46);
    memcpy(directory + directory_size + 46, name, n);
    directory_size += 46 + n;
    zip_count++;
}

static void zip_finish(void)
{
    unsigned char end[22] = { 'P', 'K', 5, 6 };
    if (zip_count > 0xfffe || written >= 0xffffffff) {
        complain(L"tar: too much for zip; use tar.gz\n");
        ExitProcess(1);
    }
    little(end + 8, zip_count, 2);
    little(end + 10, zip_count, 2);
    little(end + 12, directory_size, 4);
    little(end + 16, (uint32_t)written, 4);
    write_raw(NULL, directory, directory_size);
    write_raw(NULL, end, 22);
}

/* ---- walking ---- */

static void pack_file(const WCHAR *path, const char *name, const WIN32_FIND_DATAW *data, LONGLONG time)
{
    static unsigned char buffer[65536];
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                              NULL, OPEN_EXISTING, FILE_FLAG_SEQUENTIAL_SCAN, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        warn(L"%s: Cannot open: %s", path, error_text(GetLastError()));
        return;
    }
    ULONGLONG size = ((ULONGLONG)data->nFileSizeHigh << 32) | data->nFileSizeLow, left = size;
    unsigned char record[46];
    if (options.zip)
        zip_begin(name, FALSE, time, record);
    else
        tar_entry_header(name, '0', size, time);
    ULONGLONG start = written;
    DWORD n;
    while ((options.zip || left)
           && ReadFile(file, buffer, options.zip ? sizeof(buffer) : (DWORD)min(left, sizeof(buffer)),
                       &n, NULL)
           && n) {
        write_member(buffer, n);
        left -= n;
    }
    CloseHandle(file);
    if (options.zip) {
        zip_end(name, record, start);
        return;
    }
    if (left) {
        warn(L"%s: %s", path, L"the file became shorter while it was read; padded with zeros");
        memset(buffer, 0, sizeof(buffer));
        for (; left; left -= n)
            write_member(buffer, n = (DWORD)min(left, sizeof(buffer)));
    }
    pad(size);
}

static void pack(const WCHAR *path, const WCHAR *name, const WIN32_FIND_DATAW *data)
{
    if (excluded(name))
        return;
    BOOL is_directory = (data->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    ULONGLONG ticks = ((ULONGLONG)data->ftLastWriteTime.dwHighDateTime << 32)
        | data->ftLastWriteTime.dwLowDateTime;
    LONGLONG time = (LONGLONG)(ticks / 10000000) - 11644473600ll;
    WCHAR *stored = format_text(is_directory ? L"%s/" : L"%s", name);
    char *bytes = utf8(stored);
    if (options.verbose)
        complain(L"a %s\n", name);
    if (!is_directory) {
        pack_file(path, bytes, data, time);
    } else {
        if (options.zip) {
            unsigned char record[46];
            zip_begin(bytes, TRUE, time, record);
            zip_end(bytes, record, written);
        } else {
            tar_entry_header(bytes, '5', 0, time);
        }
        for (struct entries e = entries_of(path); next_entry(&e);) {
            WCHAR *next_name = format_text(L"%s/%s", name, e.data.cFileName);
            pack(e.path, next_name, &e.data);
            release(next_name);
        }
    }
    release(stored);
    release(bytes);
}

static void create(const WCHAR *archive)
{
    output = GetStdHandle(STD_OUTPUT_HANDLE);
    if (archive && wcscmp(archive, L"-"))
        output = CreateFileW(archive, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (output == INVALID_HANDLE_VALUE) {
        warn(L"%s: Cannot open: %s", archive, error_text(GetLastError()));
        return;
    }
    if (!change_directories())
        return;
    if (options.gzip)
        begin_gzip();
    for (int i = 0; i < options.name_count; i++) {
        WCHAR *given = options.names[i];
        if (!wcscmp(given, L"-C") && i + 1 < options.name_count) {
            if (!SetCurrentDirectoryW(options.names[++i]))
                warn(L"could not chdir to '%s': %s", options.names[i], error_text(GetLastError()));
            continue;
        }
        WCHAR *name = copy_text(given), *start = name;
        for (WCHAR *c = name; *c; c++)
            if (*c == '\\')
                *c = '/';
        if (name[0] && name[1] == ':')
            start += 2;
        while (*start == '/')
            start++;
        size_t n = wcslen(start);
        while (n > 1 && start[n - 1] == '/')
            start[--n] = 0;
        WIN32_FIND_DATAW data = { 0 };
        WIN32_FILE_ATTRIBUTE_DATA found;
        if (!GetFileAttributesExW(given, GetFileExInfoStandard, &found)) {
            warn(L"%s: Couldn't find file: %s", given, error_text(GetLastError()));
        } else {
            data.dwFileAttributes = found.dwFileAttributes;
            data.ftLastWriteTime = found.ftLastWriteTime;
            data.nFileSizeHigh = found.nFileSizeHigh;
            data.nFileSizeLow = found.nFileSizeLow;
            pack(given, *start ? start : L".", &data);
        }
        release(name);
    }
    if (options.zip) {
        zip_finish();
    } else {
        static const char zeros[1024];
        write_member(zeros, 1024);
        if (options.gzip)
            end_gzip();
    }
}

/* ---- options ---- */

static BOOL ends_in(const WCHAR *text, const WCHAR *end)
{
    size_t n = wcslen(text), m = wcslen(end);
    return n >= m && same(text + n - m, end);
}

static int bad_usage(const WCHAR *format, const WCHAR *what)
{
    warn(format, what, NULL);
    complain(L"Type \"tar --help\" for usage.\n");
    return 1;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *archive = NULL;
    BOOL by_name = FALSE;
    options.names = allocate((argc + 1) * sizeof(WCHAR *));
    for (int i = 1; i < argc; i++) {
        const WCHAR *a = argv[i], *value = NULL;
        if (a[0] == '-' && a[1] == '-') {
            const WCHAR *equals = wcschr(a, '=');
            size_t n = equals ? (size_t)(equals - a) : wcslen(a);
            value = equals ? equals + 1 : NULL;
            if (!wcscmp(a, L"--help")) {
                usage();
                return 0;
            } else if (!wcscmp(a, L"--version")) {
                print_text(L"tar (Silo), reads tar, gzip, zip\n");
                return 0;
            } else if (!wcsncmp(a, L"--exclude", n) || !wcsncmp(a, L"--strip-components", n)
                       || !wcsncmp(a, L"--format", n) || !wcsncmp(a, L"--directory", n)) {
                if (!value && !(value = argv[++i]))
                    return bad_usage(L"Option %s requires an argument", a);
                ULONGLONG number;
                if (a[2] == 'e' && options.excludes < 32) {
                    options.exclude[options.excludes++] = value;
                } else if (a[2] == 's') {
                    if (!parse_number(value, &number))
                        return bad_usage(L"Invalid --strip-components argument: %s", value);
                    options.strip = (unsigned)number;
                } else if (a[2] == 'd') {
                    if (directory_count < MAX_DIRECTORIES)
                        directories[directory_count++] = value;
                } else if (same(value, L"zip")) {
                    options.zip = TRUE;
                } else if (!same(value, L"ustar") && !same(value, L"pax") && !same(value, L"gnutar")) {
                    return bad_usage(L"The format %s is not supported", value);
                }
            } else {
                return bad_usage(L"Option %s is not supported", a);
            }
            continue;
        }
        if (!wcscmp(a, L"-C") && options.mode == CREATE) {
            options.names[options.name_count++] = argv[i]; /* goes there when its turn has come */
            if (i + 1 < argc)
                options.names[options.name_count++] = argv[++i];
            continue;
        }
        if ((a[0] != '-' || !a[1]) && i > 1) {
            options.names[options.name_count++] = argv[i];
            continue;
        }
        for (a += *a == '-'; *a; a++) {
            switch (*a) {
            case 'c': options.mode = CREATE; break;
            case 'x': options.mode = EXTRACT; break;
            case 't': options.mode = LIST; break;
            case 'v': options.verbose = TRUE; break;
            case 'z': options.gzip = TRUE; break;
            case 'a': by_name = TRUE; break;
            case 'k': options.keep_old = TRUE; break;
            case 'm': options.no_times = TRUE; break;
            case 'O': options.to_stdout = TRUE; break;
            case 'p':
            case 'o':
            case 'P':
            case 'h':
            case 'L': break; /* owners and modes have no meaning here */
            case 'f':
            case 'C':
                value = a[1] ? a + 1 : argv[++i];
                if (!value)
                    return bad_usage(L"Option -%s requires an argument", *a == 'f' ? L"f" : L"C");
                if (*a == 'f')
                    archive = value;
                else if (directory_count < MAX_DIRECTORIES)
                    directories[directory_count++] = value;
                a = L" ";
                break;
            default: {
                WCHAR letter[2] = { *a, 0 };
                return bad_usage(L"Option -%s is not supported", letter);
            }
            }
        }
    }
    if (options.mode == NONE)
        return bad_usage(L"Must specify one of -c, -t, -x%s", L"");
    if (options.mode == CREATE) {
        if (by_name && archive) {
            options.zip |= ends_in(archive, L".zip");
            options.gzip |= ends_in(archive, L".gz") || ends_in(archive, L".tgz");
        }
        if (options.zip)
            options.gzip = FALSE;
        if (!options.name_count)
            return bad_usage(L"no files or directories specified%s", L"");
        create(archive);
        return options.result;
    }
    HANDLE file = GetStdHandle(STD_INPUT_HANDLE);
    if (archive && wcscmp(archive, L"-"))
        file = CreateFileW(archive, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        complain(L"tar: Error opening archive: Failed to open '%s'\n", archive);
        return 1;
    }
    if (change_directories())
        read_archive(file);
    return options.result;
}
