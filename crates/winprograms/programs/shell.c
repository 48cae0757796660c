/*
 * silocmd.dll: what Wine's cmd.exe gets in place of shell32.dll.
 *
 * cmd takes four functions from there. That for `rmdir /s` goes, in shell32, through a link to a
 * folder and empties the place that it leads to, where Windows removes the link. Two tell which
 * program a file is for, and whether that has a console. These and the fourth, for files that are
 * no programs, are left to shell32 where it is about anything else; it is large and loaded only
 * then.
 *
 * When a program cannot be started because of what its file is, Wine's cmd says nothing at all.
 * Here it says what Windows says.
 */
/* We have these functions, and do not take them. */
#define _SHELL32_
#include <windows.h>
#include <shellapi.h>

#include "image.h"

typedef int(WINAPI *operation_function)(SHFILEOPSTRUCTW *);
typedef BOOL(WINAPI *execute_function)(SHELLEXECUTEINFOW *);
typedef HINSTANCE(WINAPI *find_function)(const WCHAR *, const WCHAR *, WCHAR *);
typedef DWORD_PTR(WINAPI *info_function)(const WCHAR *, DWORD, SHFILEINFOW *, UINT, UINT);

static void *of_shell(const char *name)
{
    HMODULE shell = LoadLibraryW(L"shell32.dll");
    return shell ? (void *)GetProcAddress(shell, name) : NULL;
}

static unsigned length(const WCHAR *text)
{
    unsigned n = 0;
    while (text[n])
        n++;
    return n;
}

static BOOL is_dots(const WCHAR *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* A path of both, to be freed; NULL without memory. */
static WCHAR *join(const WCHAR *directory, const WCHAR *name)
{
    unsigned n = length(directory), m = length(name), at = 0;
    WCHAR *path = HeapAlloc(GetProcessHeap(), 0, (n + m + 2) * sizeof(WCHAR));
    if (!path)
        return NULL;
    while (at < n) {
        path[at] = directory[at];
        at++;
    }
    if (at && path[at - 1] != '\\' && path[at - 1] != '/')
        path[at++] = '\\';
    for (unsigned i = 0; i <= m; i++)
        path[at + i] = name[i];
    return path;
}

static DWORD remove_tree(const WCHAR *path);

static DWORD remove_entry(const WCHAR *path, DWORD attributes)
{
    if (attributes & FILE_ATTRIBUTE_DIRECTORY)
        return remove_tree(path);
    if (attributes & FILE_ATTRIBUTE_READONLY)
        SetFileAttributesW(path, FILE_ATTRIBUTE_NORMAL);
    return DeleteFileW(path) ? 0 : GetLastError();
}

/* Removes all in a folder; the first error, with which it goes on. */
static DWORD remove_content(const WCHAR *path)
{
    WIN32_FIND_DATAW data;
    DWORD error = 0;
    WCHAR *all = join(path, L"*");
    HANDLE find = all ? FindFirstFileW(all, &data) : INVALID_HANDLE_VALUE;
    while (find != INVALID_HANDLE_VALUE) {
        WCHAR *below = is_dots(data.cFileName) ? NULL : join(path, data.cFileName);
        if (below) {
            DWORD failed = remove_entry(below, data.dwFileAttributes);
            if (!error)
                error = failed;
            HeapFree(GetProcessHeap(), 0, below);
        }
        if (!FindNextFileW(find, &data))
            break;
    }
    if (find != INVALID_HANDLE_VALUE)
        FindClose(find);
    if (all)
        HeapFree(GetProcessHeap(), 0, all);
    return error;
}

/* Removes a folder with all in it, but of a link only that. */
static DWORD remove_tree(const WCHAR *path)
{
    DWORD attributes = GetFileAttributesW(path), error = 0;
    if (attributes == INVALID_FILE_ATTRIBUTES)
        return GetLastError();
    if (!(attributes & FILE_ATTRIBUTE_REPARSE_POINT))
        error = remove_content(path);
    if (attributes & FILE_ATTRIBUTE_READONLY)
        SetFileAttributesW(path, attributes & ~FILE_ATTRIBUTE_READONLY);
    return RemoveDirectoryW(path) ? 0 : error ? error : GetLastError();
}

static BOOL has_wildcards(const WCHAR *path)
{
    while (*path && *path != '*' && *path != '?')
        path++;
    return *path != 0;
}

__declspec(dllexport) int WINAPI SHFileOperationW(SHFILEOPSTRUCTW *operation)
{
    const WCHAR *path = operation->pFrom;
    if (operation->wFunc == FO_DELETE && path && *path && !path[length(path) + 1]
        && !has_wildcards(path)) {
        DWORD attributes = GetFileAttributesW(path), error = GetLastError();
        if (attributes != INVALID_FILE_ATTRIBUTES)
            error = remove_entry(path, attributes);
        operation->fAnyOperationsAborted = FALSE;
        SetLastError(error);
        return error;
    }
    operation_function next = (operation_function)of_shell("SHFileOperationW");
    return next ? next(operation) : ERROR_CALL_NOT_IMPLEMENTED;
}

__declspec(dllexport) BOOL WINAPI ShellExecuteExW(SHELLEXECUTEINFOW *info)
{
    execute_function next = (execute_function)of_shell("ShellExecuteExW");
    return next && next(info);
}

static BOOL is_program(const WCHAR *path)
{
    static const char endings[][4] = { "exe", "com", "bat", "cmd" };
    unsigned n = length(path);
    if (n < 5 || n >= MAX_PATH || path[n - 4] != '.')
        return FALSE;
    for (unsigned i = 0; i < ARRAYSIZE(endings); i++)
        if ((path[n - 3] | 32) == endings[i][0] && (path[n - 2] | 32) == endings[i][1]
            && (path[n - 1] | 32) == endings[i][2])
            return TRUE;
    return FALSE;
}

__declspec(dllexport) HINSTANCE WINAPI FindExecutableW(const WCHAR *file, const WCHAR *directory,
                                                       WCHAR *result)
{
    /* What is above 32 is no error. */
    enum { FOUND = 33 };
    if (is_program(file) && GetFileAttributesW(file) != INVALID_FILE_ATTRIBUTES) {
        for (unsigned i = 0; i <= length(file); i++)
            result[i] = file[i];
        return (HINSTANCE)FOUND;
    }
    find_function next = (find_function)of_shell("FindExecutableW");
    return next ? next(file, directory, result) : (HINSTANCE)SE_ERR_NOASSOC;
}

/*
 * What kind of program a file is, in the way of SHGFI_EXETYPE: the letters `PE`, and above them
 * the version of Windows where it opens windows; 0 for what is no program.
 */
static DWORD program_kind(const WCHAR *path)
{
    IMAGE_NT_HEADERS64 headers;
    if (!read_headers(path, &headers) || headers.FileHeader.Characteristics & IMAGE_FILE_DLL)
        return 0;
    if (headers.OptionalHeader.Subsystem != IMAGE_SUBSYSTEM_WINDOWS_GUI)
        return IMAGE_NT_SIGNATURE;
    return IMAGE_NT_SIGNATURE | (DWORD)headers.OptionalHeader.MajorSubsystemVersion << 24
        | (DWORD)headers.OptionalHeader.MinorSubsystemVersion << 16;
}

__declspec(dllexport) DWORD_PTR WINAPI SHGetFileInfoW(const WCHAR *path, DWORD attributes,
                                                      SHFILEINFOW *info, UINT size, UINT flags)
{
    if (flags == SHGFI_EXETYPE)
        return program_kind(path);
    info_function next = (info_function)of_shell("SHGetFileInfoW");
    return next ? next(path, attributes, info, size, flags) : 0;
}

static void say(const WCHAR *text)
{
    HANDLE out = GetStdHandle(STD_ERROR_HANDLE);
    char bytes[1024];
    DWORD done;
    if (WriteConsoleW(out, text, length(text), &done, NULL))
        return;
    int size = WideCharToMultiByte(GetOEMCP(), 0, text, -1, bytes, sizeof(bytes), NULL, NULL);
    if (size > 1)
        WriteFile(out, bytes, size - 1, &done, NULL);
}

static void complain(const WCHAR *path, DWORD error)
{
    /* cmd puts two separators after a folder. */
    WCHAR program[MAX_PATH];
    unsigned n = 0;
    for (; *path && n < MAX_PATH - 1; path++)
        if (path[0] != '\\' || path[1] != '\\' || !n)
            program[n++] = *path;
    program[n] = 0;
    if (error == ERROR_BAD_EXE_FORMAT) {
        say(program);
        say(L" is not a valid Win32 application.\r\n");
        return;
    }
    say(L"This version of ");
    say(program);
    say(L" is not compatible with the version of Windows you're running. Check your computer's "
        L"system information and then contact the software publisher.\r\n");
}

/* What cmd calls in place of CreateProcess: with the file that it found as application. */
static BOOL WINAPI create_process(const WCHAR *application, WCHAR *command,
                                  SECURITY_ATTRIBUTES *process, SECURITY_ATTRIBUTES *thread,
                                  BOOL inherit, DWORD flags, void *environment,
                                  const WCHAR *directory, STARTUPINFOW *startup,
                                  PROCESS_INFORMATION *info)
{
    if (CreateProcessW(application, command, process, thread, inherit, flags, environment, directory,
                       startup, info))
        return TRUE;
    DWORD error = GetLastError();
    if (application) {
        if ((error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND
             || error == ERROR_BAD_EXE_FORMAT)
            && is_16_bit(application))
            error = ERROR_EXE_MACHINE_TYPE_MISMATCH;
        if (error == ERROR_BAD_EXE_FORMAT || error == ERROR_EXE_MACHINE_TYPE_MISMATCH)
            complain(application, error);
    }
    SetLastError(error);
    return FALSE;
}

/* Has the program call `ours` where it calls `theirs`, which it takes from another library. */
static void take_over(BYTE *program, void *theirs, void *ours)
{
    const IMAGE_NT_HEADERS *headers =
        (const void *)(program + ((const IMAGE_DOS_HEADER *)program)->e_lfanew);
    const IMAGE_DATA_DIRECTORY *imports =
        &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    const IMAGE_IMPORT_DESCRIPTOR *import = (const void *)(program + imports->VirtualAddress);
    if (!imports->VirtualAddress)
        return;
    for (; import->Name; import++) {
        for (void **place = (void **)(program + import->FirstThunk); *place; place++) {
            DWORD before;
            if (*place != theirs || !VirtualProtect(place, sizeof(*place), PAGE_READWRITE, &before))
                continue;
            *place = ours;
            VirtualProtect(place, sizeof(*place), before, &before);
        }
    }
}

BOOL WINAPI start(HINSTANCE own, DWORD reason, void *reserved)
{
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        HMODULE kernel = GetModuleHandleW(L"kernel32.dll");
        DisableThreadLibraryCalls(own);
        take_over((BYTE *)GetModuleHandleW(NULL), (void *)GetProcAddress(kernel, "CreateProcessW"),
                  (void *)create_process);
    }
    return TRUE;
}
