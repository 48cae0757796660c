/* Where a function of kernelbase is in a 32-bit process, which cannot be asked for it. */
#include "run.h"

enum { NAMES = 8192, END = 0x7fff0000 };

/* A part of another process's library. */
static BOOL read_at(HANDLE process, DWORD base, DWORD offset, void *data, SIZE_T size)
{
    SIZE_T done = 0;
    return ReadProcessMemory(process, (void *)(ULONG_PTR)(base + offset), data, size, &done)
        && done == size;
}

static BOOL has_text(HANDLE process, DWORD base, DWORD offset, const char *text)
{
    char there[32] = { 0 };
    unsigned n = 0;
    while (text[n])
        n++;
    return read_at(process, base, offset, there, n + 1) && text_is(there, text);
}

/* The function's address when the library is kernelbase; 0 for others. */
static DWORD find_in(HANDLE process, DWORD base, const char *function)
{
    IMAGE_DOS_HEADER dos;
    IMAGE_NT_HEADERS32 headers;
    IMAGE_EXPORT_DIRECTORY exports;
    if (!read_at(process, base, 0, &dos, sizeof(dos)) || dos.e_magic != IMAGE_DOS_SIGNATURE
        || !read_at(process, base, dos.e_lfanew, &headers, sizeof(headers))
        || headers.Signature != IMAGE_NT_SIGNATURE
        || headers.FileHeader.Machine != IMAGE_FILE_MACHINE_I386)
        return 0;
    DWORD table = headers.OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT].VirtualAddress;
    if (!table || !read_at(process, base, table, &exports, sizeof(exports))
        || !has_text(process, base, exports.Name, "kernelbase.dll"))
        return 0;
    for (DWORD i = 0; i < exports.NumberOfNames && i < NAMES; i++) {
        DWORD name, address;
        WORD ordinal;
        if (read_at(process, base, exports.AddressOfNames + 4 * i, &name, sizeof(name))
            && has_text(process, base, name, function)
            && read_at(process, base, exports.AddressOfNameOrdinals + 2 * i, &ordinal,
                       sizeof(ordinal))
            && read_at(process, base, exports.AddressOfFunctions + 4 * ordinal, &address,
                       sizeof(address)))
            return base + address;
    }
    return 0;
}

void *narrow_function(HANDLE process, const char *function)
{
    MEMORY_BASIC_INFORMATION info;
    for (ULONG_PTR at = 0x10000; at < END; at = (ULONG_PTR)info.BaseAddress + info.RegionSize) {
        if (!VirtualQueryEx(process, (void *)at, &info, sizeof(info)))
            break;
        if (info.Type != MEM_IMAGE || info.BaseAddress != info.AllocationBase)
            continue;
        DWORD found = find_in(process, (DWORD)at, function);
        if (found)
            return (void *)(ULONG_PTR)found;
    }
    return NULL;
}
