/* systeminfo: what is known of the system, without what only a real machine has. */
#include "rt.h"

static const WCHAR version_key[] = L"Software\\Microsoft\\Windows NT\\CurrentVersion";

static WCHAR *registry(const WCHAR *key, const WCHAR *name)
{
    static union {
        WCHAR text[512];
        DWORD number;
    } data;
    HKEY opened;
    DWORD type, size = sizeof(data) - 2;
    *data.text = 0;
    if (!RegOpenKeyExW(HKEY_LOCAL_MACHINE, key, 0, KEY_READ, &opened)) {
        if (RegQueryValueExW(opened, name, NULL, &type, (BYTE *)&data, &size))
            *data.text = 0;
        else if (type == REG_DWORD)
            return format_text(L"%lu", data.number);
        RegCloseKey(opened);
    }
    return copy_text(data.text);
}

enum { MAX_ROWS = 32 };
static const WCHAR *names[MAX_ROWS];
static WCHAR *values[MAX_ROWS];
static unsigned rows;

static void add(const WCHAR *name, WCHAR *value)
{
    names[rows] = name;
    values[rows++] = value;
}

static WCHAR *megabytes(ULONGLONG bytes)
{
    ULONGLONG n = bytes >> 20;
    return n >= 1000000 ? format_text(L"%I64u,%03I64u,%03I64u MB", n / 1000000, n / 1000 % 1000, n % 1000)
        : n >= 1000     ? format_text(L"%I64u,%03I64u MB", n / 1000, n % 1000)
                        : format_text(L"%I64u MB", n);
}

int program(int argc, WCHAR **argv)
{
    enum { TABLE, LIST, CSV } format = LIST;
    BOOL head = TRUE;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            print_text(L"SYSTEMINFO [/FO TABLE|LIST|CSV] [/NH]\n\nOther computers (/S) are not supported.\n");
            return 0;
        } else if (is_option(argv[i], L"nh")) {
            head = FALSE;
        } else if (is_option(argv[i], L"fo") && i + 1 < argc) {
            i++;
            format = same(argv[i], L"csv") ? CSV : same(argv[i], L"table") ? TABLE : LIST;
        } else {
            complain(L"ERROR: Invalid argument/option - '%s'.\nType \"SYSTEMINFO /?\" for usage.\n", argv[i]);
            return 1;
        }
    }
    WCHAR host[64] = L"", windows[MAX_PATH], system[MAX_PATH];
    DWORD size = 63;
    SYSTEM_INFO info;
    MEMORYSTATUSEX memory = { .dwLength = sizeof(memory) };
    SYSTEMTIME now;
    GetComputerNameW(host, &size);
    GetWindowsDirectoryW(windows, MAX_PATH);
    GetSystemDirectoryW(system, MAX_PATH);
    GetSystemInfo(&info);
    GlobalMemoryStatusEx(&memory);
    GetLocalTime(&now);
    WCHAR *build = registry(version_key, L"CurrentBuildNumber");
    ULONGLONG up = GetTickCount64() / 1000;
    add(L"Host Name", copy_text(host));
    add(L"OS Name", registry(version_key, L"ProductName"));
    add(L"OS Version", format_text(L"10.0.%s N/A Build %s", build, build));
    add(L"OS Manufacturer", copy_text(L"Microsoft Corporation"));
    add(L"OS Configuration", copy_text(L"Standalone Server"));
    add(L"OS Build Type", copy_text(L"Multiprocessor Free"));
    add(L"Registered Owner", registry(version_key, L"RegisteredOwner"));
    add(L"Product ID", registry(version_key, L"ProductId"));
    add(L"System Up Time", format_text(L"%I64u Days, %I64u Hours, %I64u Minutes, %I64u Seconds", up / 86400,
                                       up / 3600 % 24, up / 60 % 60, up % 60));
    add(L"System Manufacturer", registry(L"Hardware\\Description\\System\\BIOS", L"SystemManufacturer"));
    add(L"System Model", registry(L"Hardware\\Description\\System\\BIOS", L"SystemProductName"));
    add(L"System Type", copy_text(L"x64-based PC"));
    WCHAR *name = registry(L"Hardware\\Description\\System\\CentralProcessor\\0", L"ProcessorNameString");
    WCHAR *speed = registry(L"Hardware\\Description\\System\\CentralProcessor\\0", L"~MHz");
    add(L"Processor(s)", format_text(L"%lu Processor(s) Installed: %s ~%s Mhz", info.dwNumberOfProcessors, name, speed));
    add(L"Windows Directory", copy_text(windows));
    add(L"System Directory", copy_text(system));
    add(L"System Locale", copy_text(L"en-us;English (United States)"));
    add(L"Current Time", format_text(L"%u/%u/%u, %02u:%02u:%02u", now.wMonth, now.wDay, now.wYear, now.wHour,
                                     now.wMinute, now.wSecond));
    add(L"Total Physical Memory", megabytes(memory.ullTotalPhys));
    add(L"Available Physical Memory", megabytes(memory.ullAvailPhys));
    add(L"Virtual Memory: Max Size", megabytes(memory.ullTotalPageFile));
    add(L"Virtual Memory: Available", megabytes(memory.ullAvailPageFile));
    add(L"Domain", copy_text(L"WORKGROUP"));
    if (format == LIST) {
        print_text(L"\n");
        for (unsigned i = 0; i < rows; i++) {
            WCHAR *label = format_text(L"%s:", names[i]);
            print(L"%-26s %s\n", label, values[i]);
        }
        return 0;
    }
    for (unsigned pass = head ? 0 : 1; pass < 2; pass++) {
        for (unsigned i = 0; i < rows; i++)
            print(format == CSV ? L"%s\"%s\"" : L"%s%s", i ? (format == CSV ? L"," : L" ") : L"",
                  pass ? values[i] : names[i]);
        print_text(L"\n");
    }
    return 0;
}
