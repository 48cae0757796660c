/* mklink: makes links. cmd.exe of the runtime has its own taken out, which only says that it made
 * one. Hard links are Wine's matter; for others process 1 of the container is asked, as Wine has
 * no call that makes them. What is asked, and how, stands in silo-windows' `links`. */
#include "rt.h"

#define REQUESTS L"\\\\?\\unix\\prefix\\.silo\\links\\"

enum { PATH_LIMIT = 32768, ANSWER_LIMIT = 10000 /* milliseconds */ };

static void usage(void)
{
    print_text(L"Creates a symbolic link.\n\n"
               L"MKLINK [[/D] | [/H] | [/J]] Link Target\n\n"
               L"    /D     A symbolic link to a directory instead of a file.\n"
               L"    /H     A hard link instead of a symbolic one.\n"
               L"    /J     A directory junction.\n"
               L"    Link   The new name.\n"
               L"    Target The path that it leads to, on drive C:.\n");
}

static WCHAR *full_path(const WCHAR *path)
{
    WCHAR *full = allocate(PATH_LIMIT * sizeof(WCHAR));
    if (!GetFullPathNameW(path, PATH_LIMIT, full, NULL))
        wcscpy(full, path);
    return full;
}

static BOOL put(const WCHAR *name, const WCHAR *link, const WCHAR *target)
{
    WCHAR *text = format_text(L"link=%s%ctarget=%s%c", link, 1, target, 1);
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL) - 1;
    char *bytes = allocate(size + 1);
    WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, size + 1, NULL, NULL);
    for (int i = 0; i < size; i++)
        if (bytes[i] == 1)
            bytes[i] = 0;
    WCHAR *aside = format_text(REQUESTS L"%s.new", name), *path = format_text(REQUESTS L"%s", name);
    HANDLE file = CreateFileW(aside, GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    write_bytes(file, bytes, size);
    CloseHandle(file);
    if (!MoveFileExW(aside, path, 0))
        return FALSE;
    file = CreateFileW(REQUESTS L"wake.fifo", GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                       OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    write_bytes(file, "", 1);
    CloseHandle(file);
    return TRUE;
}

/* The error that was answered; TRUE when there is an answer. */
static BOOL answered(const WCHAR *name, DWORD *code)
{
    char bytes[32] = { 0 };
    DWORD done = 0;
    WCHAR *path = format_text(REQUESTS L"%s.answer", name);
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, FILE_FLAG_DELETE_ON_CLOSE, NULL);
    release(path);
    if (file == INVALID_HANDLE_VALUE)
        return FALSE;
    ReadFile(file, bytes, sizeof(bytes) - 1, &done, NULL);
    CloseHandle(file);
    *code = memcmp(bytes, "code=", 5) ? ERROR_INVALID_DATA : strtoul(bytes + 5, NULL, 10);
    return TRUE;
}

/* Has process 1 make a link; Windows' error. */
static DWORD ask(const WCHAR *link, const WCHAR *target)
{
    WCHAR *name = format_text(L"%lux%lu", GetCurrentProcessId(), GetTickCount());
    HANDLE changes = FindFirstChangeNotificationW(REQUESTS, FALSE, FILE_NOTIFY_CHANGE_FILE_NAME);
    if (changes == INVALID_HANDLE_VALUE || !put(name, link, target))
        return ERROR_NOT_SUPPORTED;
    DWORD code, end = GetTickCount() + ANSWER_LIMIT;
    while (!answered(name, &code)) {
        DWORD left = end - GetTickCount();
        if (left > ANSWER_LIMIT || WaitForSingleObject(changes, left) != WAIT_OBJECT_0)
            return ERROR_TIMEOUT;
        FindNextChangeNotification(changes);
    }
    return code;
}

static const WCHAR *words(DWORD code)
{
    switch (code) {
    case ERROR_INVALID_REPARSE_DATA:
        return L"Links lead to places on drive C: only.";
    case ERROR_NOT_SUPPORTED:
        return L"The device does not support symbolic links.";
    default:
        return error_text(code);
    }
}

int program(int argc, WCHAR **argv)
{
    WCHAR kind = 0;
    const WCHAR *paths[2];
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '/' && argv[i][1] && !argv[i][2]) {
            WCHAR letter = lower(argv[i][1]);
            if (letter == '?') {
                usage();
                return 0;
            }
            if (letter != 'd' && letter != 'h' && letter != 'j') {
                complain(L"Invalid switch - \"%s\".\n", argv[i] + 1);
                return 1;
            }
            kind = letter;
        } else if (count < 2) {
            paths[count++] = argv[i];
        } else {
            count++;
        }
    }
    if (count != 2) {
        complain(L"The syntax of the command is incorrect.\n");
        usage();
        return 1;
    }
    WCHAR *link = full_path(paths[0]);
    DWORD code = 0;
    if (kind == 'h') {
        WCHAR *target = full_path(paths[1]);
        if (!CreateHardLinkW(link, target, NULL))
            code = GetLastError();
    } else {
        /* A junction's target is from the drive's root, and so is C:x. */
        BOOL whole = kind == 'j' || (paths[1][0] && paths[1][1] == ':');
        code = ask(link, whole ? full_path(paths[1]) : paths[1]);
    }
    if (code) {
        complain(L"%s\n", words(code));
        return 1;
    }
    print(L"%s created for %s <<===>> %s\n",
          kind == 'h' ? L"Hardlink" : kind == 'j' ? L"Junction" : L"symbolic link", paths[0],
          paths[1]);
    return 0;
}
