/* What a file is that Wine does not start as a program. */
#ifndef SILO_IMAGE_H
#define SILO_IMAGE_H

#include <windows.h>

/* Reads a program's headers as far as its subsystem, up to which 32-bit ones are the same. */
static inline BOOL read_headers(const WCHAR *path, IMAGE_NT_HEADERS64 *headers)
{
    IMAGE_DOS_HEADER dos;
    DWORD done;
    const DWORD needed = offsetof(IMAGE_NT_HEADERS64, OptionalHeader.DllCharacteristics);
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    BOOL read = ReadFile(file, &dos, sizeof(dos), &done, NULL) && done == sizeof(dos)
        && dos.e_magic == IMAGE_DOS_SIGNATURE
        && SetFilePointer(file, dos.e_lfanew, NULL, FILE_BEGIN) != INVALID_SET_FILE_POINTER
        && ReadFile(file, headers, needed, &done, NULL) && done == needed
        && headers->Signature == IMAGE_NT_SIGNATURE;
    CloseHandle(file);
    return read;
}

/*
 * Whether a file is a program for DOS or 16-bit Windows, which 64-bit Windows does not run either.
 * For those Wine looks for a program of its own that the runtime does not have, and says that
 * there is no such file.
 */
static inline BOOL is_16_bit(const WCHAR *path)
{
    BYTE head[64], signature[4] = { 0 };
    DWORD done, at;
    const WCHAR *end = path;
    while (*end)
        end++;
    BOOL command = end - path > 4 && end[-4] == '.' && (end[-3] | 32) == 'c'
        && (end[-2] | 32) == 'o' && (end[-1] | 32) == 'm';
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    BOOL is = command;
    if (ReadFile(file, head, sizeof(head), &done, NULL) && done == sizeof(head) && head[0] == 'M'
        && head[1] == 'Z') {
        at = head[60] | head[61] << 8 | head[62] << 16 | (DWORD)head[63] << 24;
        SetFilePointer(file, at, NULL, FILE_BEGIN);
        is = !ReadFile(file, signature, sizeof(signature), &done, NULL)
            || done < sizeof(signature) || signature[0] != 'P' || signature[1] != 'E'
            || signature[2] || signature[3];
    }
    CloseHandle(file);
    return is;
}

#endif
