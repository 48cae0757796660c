/* Reading zip: by the central directory at the file's end, which is what counts. */
#include "inflate.h"
#include "tar.h"

struct member {
    HANDLE file;
    ULONGLONG left; /* packed bytes that are still to be read */
    uint32_t crc;
    ULONGLONG size;
};

static uint32_t little(const unsigned char *at, unsigned bytes)
{
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | at[bytes];
    return value;
}

static ULONGLONG little64(const unsigned char *at)
{
    return (ULONGLONG)little(at + 4, 4) << 32 | little(at, 4);
}

static BOOL read_at(HANDLE file, ULONGLONG offset, void *buffer, DWORD size)
{
    LARGE_INTEGER at = { .QuadPart = (LONGLONG)offset };
    DWORD n;
    return SetFilePointerEx(file, at, NULL, FILE_BEGIN) && ReadFile(file, buffer, size, &n, NULL)
        && n == size;
}

static size_t read_member(void *context, unsigned char *buffer, size_t size)
{
    struct member *m = context;
    DWORD n;
    size = (size_t)min((ULONGLONG)size, m->left);
    if (!size || !ReadFile(m->file, buffer, size, &n, NULL))
        return 0;
    m->left -= n;
    return n;
}

static BOOL write_member(void *context, const unsigned char *data, size_t size)
{
    struct member *m = context;
    m->crc = crc32_of(m->crc, data, size);
    m->size += size;
    return entry_data(data, size);
}

static LONGLONG unix_time(uint32_t dos)
{
    FILETIME local, file;
    if (!DosDateTimeToFileTime(dos >> 16, (WORD)dos, &local) || !LocalFileTimeToFileTime(&local, &file))
        return 0;
    return (LONGLONG)((((ULONGLONG)file.dwHighDateTime << 32) | file.dwLowDateTime) / 10000000)
        - 11644473600ll;
}

static int broken(const WCHAR *what)
{
    complain(L"tar: Damaged zip archive: %s\n", what);
    options.result = 1;
    return 0;
}

/* One record of the central directory; its length, 0 when it is broken. */
static size_t read_record(HANDLE file, const unsigned char *r, size_t room)
{
    if (room < 46 || memcmp(r, "PK\1\2", 4))
        return broken(L"no record where one has to be");
    unsigned flags = little(r + 8, 2), method = little(r + 10, 2);
    unsigned name_size = little(r + 28, 2), extra_size = little(r + 30, 2);
    size_t length = 46 + name_size + extra_size + little(r + 32, 2);
    if (length > room)
        return broken(L"a record that is too long");
    ULONGLONG packed = little(r + 20, 4), size = little(r + 24, 4), offset = little(r + 42, 4);
    const unsigned char *extra = r + 46 + name_size, *end = extra + extra_size;
    for (; end - extra >= 4; extra += 4 + little(extra + 2, 2)) {
        const unsigned char *at = extra + 4, *stop = at + little(extra + 2, 2);
        if (stop > end)
            break;
        if (little(extra, 2) != 1)
            continue;
        /* The 64-bit sizes of those that do not fit, in this order. */
        ULONGLONG *fields[3] = { &size, &packed, &offset };
        for (unsigned i = 0; i < 3; i++)
            if (*fields[i] == 0xffffffff && stop - at >= 8) {
                *fields[i] = little64(at);
                at += 8;
            }
    }
    struct entry e = { .type = '0', .size = size, .time = unix_time(little(r + 12, 4)) };
    e.name = wide_text((const char *)r + 46, name_size, flags & 0x800 ? CP_UTF8 : CP_OEMCP);
    if (!(flags & 0x800)) { /* most packers write UTF-8 without saying so */
        int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, (const char *)r + 46, name_size, NULL, 0);
        if (n || !name_size) {
            release(e.name);
            e.name = wide_text((const char *)r + 46, name_size, CP_UTF8);
        }
    }
    e.target = L"";
    for (WCHAR *c = e.name; *c; c++)
        if (*c == '\\')
            *c = '/';
    size_t n = wcslen(e.name);
    if (n && e.name[n - 1] == '/')
        e.type = '5';
    else if (r[5] == 3 && (little(r + 38, 4) >> 28) == 10)
        e.type = '2'; /* Unix' mode of a symbolic link */

    unsigned char local[30];
    if (flags & 1) {
        warn(L"%s: %s", e.name, L"encrypted entries are not supported");
    } else if (method != 0 && method != 8) {
        warn(L"%s: %s", e.name, L"packed by a method that is not supported");
    } else if (!read_at(file, offset, local, 30) || memcmp(local, "PK\3\4", 4)) {
        broken(L"no entry where the directory says");
    } else {
        LARGE_INTEGER data = { .QuadPart = (LONGLONG)(offset + 30 + little(local + 26, 2)
                                                      + little(local + 28, 2)) };
        SetFilePointerEx(file, data, NULL, FILE_BEGIN);
        entry_begin(&e);
        struct member m = { .file = file, .left = packed };
        if (e.type == '0' && options.mode == EXTRACT) {
            struct inflate *s = allocate(sizeof(*s));
            s->read = read_member;
            s->write = write_member;
            s->context = &m;
            BOOL good = TRUE;
            if (method) {
                good = inflate_stream(s);
            } else {
                size_t part;
                while (good && (part = read_member(&m, s->input, sizeof(s->input))))
                    good = write_member(&m, s->input, part);
            }
            release(s);
            if (!good || m.size != size || m.crc != little(r + 16, 4))
                warn(L"%s: %s", e.name, L"damaged data");
        }
        entry_end();
    }
    release(e.name);
    return length;
}

void read_zip(HANDLE file)
{
    enum { TAIL = 65536 + 22, LIMIT = 1 << 30 };
    LARGE_INTEGER whole;
    if (!GetFileSizeEx(file, &whole) || GetFileType(file) != FILE_TYPE_DISK) {
        complain(L"tar: zip can only be read from a file, not from a pipe\n");
        options.result = 1;
        return;
    }
    DWORD tail_size = (DWORD)min(whole.QuadPart, (LONGLONG)TAIL);
    unsigned char *tail = allocate(TAIL), *found = NULL;
    read_at(file, whole.QuadPart - tail_size, tail, tail_size);
    for (DWORD at = tail_size >= 22 ? tail_size - 22 + 1 : 0; at-- && !found;)
        if (!memcmp(tail + at, "PK\5\6", 4))
            found = tail + at;
    if (!found) {
        broken(L"its directory is missing");
        return;
    }
    ULONGLONG count = little(found + 10, 2), size = little(found + 12, 4), offset = little(found + 16, 4);
    unsigned char wide[56];
    if ((count == 0xffff || size == 0xffffffff || offset == 0xffffffff) && found - tail >= 20
        && !memcmp(found - 20, "PK\6\7", 4) && read_at(file, little64(found - 12), wide, 56)
        && !memcmp(wide, "PK\6\6", 4)) {
        count = little64(wide + 32);
        size = little64(wide + 40);
        offset = little64(wide + 48);
    }
    if (size > LIMIT || size > (ULONGLONG)whole.QuadPart) {
        broken(L"its directory is too long");
        return;
    }
    unsigned char *directory = allocate((size_t)size + 1);
    if (size && !read_at(file, offset, directory, (DWORD)size)) {
        broken(L"its directory cannot be read");
        return;
    }
    for (size_t at = 0, n; count--; at += n)
        if (!(n = read_record(file, directory + at, (size_t)size - at)))
            return;
}
