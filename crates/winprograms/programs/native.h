/* Calls of ntdll that the compiler's headers lack, and short forms of those that we use often. */
#ifndef SILO_NATIVE_H
#define SILO_NATIVE_H

#include <windows.h>
#include <winternl.h>

struct basic_information {
    ULONG reserved, timer_resolution, page_size, physical_pages;
    ULONG lowest_page, highest_page, granularity;
    ULONG_PTR lowest_address, highest_address, affinity;
    BYTE processors;
};

NTSTATUS NTAPI NtOpenSection(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *);
NTSTATUS NTAPI NtCreateEvent(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *, ULONG, BOOLEAN);
NTSTATUS NTAPI NtOpenEvent(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *);
NTSTATUS NTAPI NtSetEvent(HANDLE, LONG *);
NTSTATUS NTAPI NtCreateKey(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *, ULONG,
                           const UNICODE_STRING *, ULONG, ULONG *);
NTSTATUS NTAPI NtSetValueKey(HANDLE, const UNICODE_STRING *, ULONG, ULONG, const void *, ULONG);
NTSTATUS NTAPI NtQueryValueKey(HANDLE, const UNICODE_STRING *, ULONG, void *, ULONG, ULONG *);
NTSTATUS NTAPI NtDeleteValueKey(HANDLE, const UNICODE_STRING *);
NTSTATUS NTAPI NtReadFile(HANDLE, HANDLE, void *, void *, IO_STATUS_BLOCK *, void *, ULONG,
                          LARGE_INTEGER *, ULONG *);
NTSTATUS NTAPI NtPowerInformation(int, void *, ULONG, void *, ULONG);
NTSTATUS NTAPI RtlGetVersion(RTL_OSVERSIONINFOW *);

enum { NotificationEvent = 0 };
/* Wine's own: makes a process one that a session does not wait for; the handle says when it ends. */
enum { ProcessWineMakeProcessSystem = 1000 };
/* Set by silo-boot when the drivers are there. */
#define DRIVERS_EVENT L"\\KernelObjects\\silo_drivers"

/* An object's attributes with a name; both structures have to live as long as the use. */
static inline void object(OBJECT_ATTRIBUTES *attributes, UNICODE_STRING *name, const WCHAR *text,
                          ULONG flags)
{
    RtlInitUnicodeString(name, text);
    InitializeObjectAttributes(attributes, name, flags, NULL, NULL);
}

/* A registry key with everything above it; NULL on failure. */
static inline HANDLE create_key(const WCHAR *path, ULONG options)
{
    HANDLE key = NULL;
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    object(&attributes, &name, path, OBJ_CASE_INSENSITIVE);
    NTSTATUS status =
        NtCreateKey(&key, MAXIMUM_ALLOWED, &attributes, 0, NULL, options, NULL);
    if (status == (NTSTATUS)0xc0000034) { /* a part above is missing: make that first */
        WCHAR parent[160];
        unsigned last = 0, i;
        for (i = 0; path[i] && i < 159; i++) {
            parent[i] = path[i];
            if (path[i] == '\\')
                last = i;
        }
        if (last < 18)
            return NULL;
        parent[last] = 0;
        HANDLE above = create_key(parent, options);
        if (!above)
            return NULL;
        NtClose(above);
        status = NtCreateKey(&key, MAXIMUM_ALLOWED, &attributes, 0, NULL, options, NULL);
    }
    return status < 0 ? NULL : key;
}

/* The value's data in `data`; its length in bytes, 0 when it is missing or too long. */
static inline ULONG get_value(HANDLE key, const WCHAR *name, void *data, ULONG size)
{
    struct {
        ULONG index, type, length;
        BYTE data[];
    } *partial = data;
    UNICODE_STRING text;
    ULONG used;
    RtlInitUnicodeString(&text, name);
    if (NtQueryValueKey(key, &text, 2 /* KeyValuePartialInformation */, data, size, &used) < 0)
        return 0;
    ULONG length = partial->length;
    BYTE *to = data;
    for (ULONG i = 0; i < length; i++)
        to[i] = partial->data[i];
    to[length] = to[length + 1] = 0;
    return length;
}

static inline void delete_value(HANDLE key, const WCHAR *name)
{
    UNICODE_STRING text;
    RtlInitUnicodeString(&text, name);
    NtDeleteValueKey(key, &text);
}

static inline ULONG bytes_of(const WCHAR *text)
{
    ULONG n = 0;
    while (text[n])
        n++;
    return 2 * n + 2;
}

static inline void set_string(HANDLE key, const WCHAR *name, const WCHAR *value)
{
    UNICODE_STRING text;
    RtlInitUnicodeString(&text, name);
    NtSetValueKey(key, &text, 0, REG_SZ, value, bytes_of(value));
}

/* Like set_string, but leaves the key's time as it is when nothing changes. */
static inline void set_string_if_other(HANDLE key, const WCHAR *name, const WCHAR *value)
{
    WCHAR old[160];
    ULONG size = get_value(key, name, old, sizeof(old) - 4), i;
    if (size == bytes_of(value)) {
        for (i = 0; i < size / 2 && old[i] == value[i]; i++)
            ;
        if (i == size / 2)
            return;
    }
    set_string(key, name, value);
}

static inline void set_number(HANDLE key, const WCHAR *name, ULONG value)
{
    UNICODE_STRING text;
    RtlInitUnicodeString(&text, name);
    NtSetValueKey(key, &text, 0, REG_DWORD, &value, sizeof(value));
}

/* Opens a file by its NT path for reading; NULL on failure. */
static inline HANDLE open_native(const WCHAR *path)
{
    HANDLE file = NULL;
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK io;
    object(&attributes, &name, path, 0);
    NTSTATUS status = NtOpenFile(&file, GENERIC_READ | SYNCHRONIZE, &attributes, &io,
                                 FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_SYNCHRONOUS_IO_NONALERT);
    return status < 0 ? NULL : file;
}

static inline ULONG read_native(HANDLE file, void *data, ULONG size)
{
    IO_STATUS_BLOCK io;
    return NtReadFile(file, NULL, NULL, NULL, &io, data, size, NULL, NULL) < 0
        ? 0
        : (ULONG)io.Information;
}

#endif
