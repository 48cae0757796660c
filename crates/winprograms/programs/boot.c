/*
 * silo-boot: takes the place of Wine's wineboot.exe and brings a session up.
 *
 * Wine's loader starts this program from the first process of a session and lets that process
 * wait until \KernelObjects\__wineboot_event is set. Whoever finds the event gone starts a session
 * again, so a process that stays has to hold it: services.exe inherits our handle.
 *
 * Before the event is set comes only what every program may look at when it starts: the page of data
 * that is shared with the kernel (version, processor features), the computer's name, and files to be
 * renamed. Then the services start at once, because silo-run waits for them before it lets its program
 * run, and gets that ready meanwhile. The description of the hardware comes last.
 *
 * Then this program becomes the host of Wine's drivers for volumes and networks, and stays. Wine has
 * services.exe start a host, which is told by remote calls what to load; that would take silo-run's
 * wait from some 15 ms to 45. In the registry of base images these drivers start on demand.
 *
 * Silo prepares prefixes when it makes images. This program never updates one, and it does not
 * start what Run and RunOnce keys name: nobody logs on to a container.
 *
 * Only ntdll and kernel32 are loaded before the event. Each further library would cost every start
 * a millisecond.
 */
#include <windows.h>
#include <winternl.h>
#include <cpuid.h>

#include "native.h"

#define MACHINE L"\\Registry\\Machine\\"
#define CONTROL MACHINE L"System\\CurrentControlSet\\Control\\"

/* Offsets in KUSER_SHARED_DATA, as in the driver kit's header. */
enum {
    TICK_COUNT_MULTIPLIER = 0x004,
    NT_SYSTEM_ROOT = 0x030,
    LARGE_PAGE_MINIMUM = 0x244,
    NT_BUILD_NUMBER = 0x260,
    NT_PRODUCT_TYPE = 0x264,
    PRODUCT_TYPE_IS_VALID = 0x268,
    NATIVE_ARCHITECTURE = 0x26a,
    NT_MAJOR_VERSION = 0x26c,
    NT_MINOR_VERSION = 0x270,
    PROCESSOR_FEATURES = 0x274,
    SUITE_MASK = 0x2d0,
    NX_SUPPORT_POLICY = 0x2d5,
    PHYSICAL_PAGES = 0x2e8,
    SYSTEM_CALL = 0x308,
    PROCESSOR_COUNT = 0x3c0,
    GROUP_COUNT = 0x3c4,
    XSTATE = 0x3d8,
};

/* XSTATE_CONFIGURATION without what we leave alone at its end. */
struct xstate {
    ULONG64 enabled;
    ULONG64 enabled_volatile;
    ULONG size;
    ULONG flags; /* 1: XSAVEOPT, 2: XSAVEC */
    struct {
        ULONG offset;
        ULONG size;
    } features[64];
    ULONG64 supervisor;
    ULONG64 aligned;
    ULONG all_size;
    ULONG all[64];
};

static HANDLE boot_event;

static void cpuid(unsigned leaf, unsigned sub, unsigned r[4])
{
    __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]);
}

/* What the kernel saves of each thread: the states that Windows knows (SSE, AVX, AVX-512). */
static void fill_xstate(struct xstate *x)
{
    enum { LEGACY = 0xa0, SSE = 0x100, HEADER_END = 0x240 };
    const ULONG64 known = 0xe7;
    unsigned r[4];
    cpuid(0, 0, r);
    if (r[0] < 0xd)
        return;
    cpuid(0xd, 0, r);
    ULONG64 enabled = (((ULONG64)r[3] << 32) | r[0]) & known;
    if (!(enabled >> 2))
        return;
    x->all_size = r[1];
    cpuid(0xd, 1, r);
    x->flags = r[0] & 3;
    x->features[0].size = x->all[0] = LEGACY;
    x->features[1].offset = LEGACY;
    x->features[1].size = x->all[1] = SSE;
    unsigned next = HEADER_END;
    for (unsigned i = 2; i < 64; i++) {
        if (!(enabled >> i & 1))
            continue;
        cpuid(0xd, i, r);
        if (r[2] & 2) {
            x->aligned |= 1ull << i;
            next = (next + 63) & ~63u;
        }
        x->features[i].offset = x->flags & 2 ? next : r[1];
        x->features[i].size = x->all[i] = r[0];
        next = x->features[i].offset + r[0];
    }
    x->size = next;
    x->enabled_volatile = enabled;
    x->enabled = enabled;
}

static void fill_features(BYTE *feature)
{
    unsigned a[4], b[4], e[4];
    cpuid(1, 0, a);
    cpuid(7, 0, b);
    cpuid(0x80000001, 0, e);
    unsigned c = a[2], d = a[3];
    BOOL xsave = c >> 27 & 1; /* the operating system uses XSAVE */
    feature[PF_COMPARE_EXCHANGE_DOUBLE] = d >> 8 & 1;
    feature[PF_MMX_INSTRUCTIONS_AVAILABLE] = d >> 23 & 1;
    feature[PF_XMMI_INSTRUCTIONS_AVAILABLE] = d >> 25 & 1;
    feature[PF_3DNOW_INSTRUCTIONS_AVAILABLE] = e[3] >> 31 & 1;
    feature[PF_RDTSC_INSTRUCTION_AVAILABLE] = d >> 4 & 1;
    feature[PF_PAE_ENABLED] = d >> 6 & 1;
    feature[PF_XMMI64_INSTRUCTIONS_AVAILABLE] = d >> 26 & 1;
    feature[PF_SSE_DAZ_MODE_AVAILABLE] = d >> 26 & 1;
    feature[PF_NX_ENABLED] = e[3] >> 20 & 1;
    feature[PF_SSE3_INSTRUCTIONS_AVAILABLE] = c & 1;
    feature[PF_COMPARE_EXCHANGE128] = c >> 13 & 1;
    feature[PF_XSAVE_ENABLED] = xsave;
    feature[23 /* PF_FASTFAIL_AVAILABLE */] = 1;
    feature[36 /* PF_SSSE3 */] = c >> 9 & 1;
    feature[37 /* PF_SSE4_1 */] = c >> 19 & 1;
    feature[38 /* PF_SSE4_2 */] = c >> 20 & 1;
    feature[39 /* PF_AVX */] = xsave && (c >> 28 & 1);
    feature[40 /* PF_AVX2 */] = xsave && (c >> 28 & 1) && (b[1] >> 5 & 1);
}

#define AT(type, offset) (*(type *)(page + (offset)))

static void fill_shared_data(unsigned processors)
{
    HANDLE section;
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    object(&attributes, &name, L"\\KernelObjects\\__wine_user_shared_data", 0);
    if (NtOpenSection(&section, SECTION_MAP_READ | SECTION_MAP_WRITE, &attributes))
        return;
    BYTE *page = MapViewOfFile(section, FILE_MAP_WRITE, 0, 0, 0x1000);
    NtClose(section);
    if (!page)
        return;

    RTL_OSVERSIONINFOEXW version = { .dwOSVersionInfoSize = sizeof(version) };
    RtlGetVersion((RTL_OSVERSIONINFOW *)&version);
    struct basic_information basic = { 0 };
    NtQuerySystemInformation(SystemBasicInformation, &basic, sizeof(basic), NULL);

    AT(ULONG, TICK_COUNT_MULTIPLIER) = 1 << 24;
    static const WCHAR root[] = L"C:\\windows";
    for (unsigned i = 0; i < sizeof(root) / 2; i++)
        AT(WCHAR, NT_SYSTEM_ROOT + 2 * i) = root[i];
    AT(ULONG, LARGE_PAGE_MINIMUM) = 2 << 20;
    AT(ULONG, NT_BUILD_NUMBER) = version.dwBuildNumber;
    AT(ULONG, NT_PRODUCT_TYPE) = version.wProductType;
    AT(BYTE, PRODUCT_TYPE_IS_VALID) = 1;
    AT(USHORT, NATIVE_ARCHITECTURE) = PROCESSOR_ARCHITECTURE_AMD64;
    AT(ULONG, NT_MAJOR_VERSION) = version.dwMajorVersion;
    AT(ULONG, NT_MINOR_VERSION) = version.dwMinorVersion;
    AT(ULONG, SUITE_MASK) = version.wSuiteMask;
    AT(BYTE, NX_SUPPORT_POLICY) = 2; /* programs that ask for it */
    AT(ULONG, PHYSICAL_PAGES) = basic.physical_pages;
    AT(ULONG, SYSTEM_CALL) = 1; /* not by the syscall instruction: Wine has to see them */
    AT(ULONG, PROCESSOR_COUNT) = processors;
    AT(BYTE, GROUP_COUNT) = 1;
    fill_features(page + PROCESSOR_FEATURES);
    fill_xstate((struct xstate *)(page + XSTATE));
    UnmapViewOfFile(page);
}

/* The host name, which is an attribute of the container's UTS namespace. At most 63 letters. */
static unsigned read_host_name(WCHAR *name)
{
    HANDLE file = open_native(L"\\??\\unix\\proc\\sys\\kernel\\hostname");
    char text[64];
    unsigned length = file ? read_native(file, text, sizeof(text) - 1) : 0;
    if (file)
        NtClose(file);
    unsigned n = 0;
    while (n < length && text[n] > ' ' && text[n] != '.') {
        name[n] = text[n];
        n++;
    }
    name[n] = 0;
    return n;
}

static void set_computer_name(void)
{
    WCHAR host[64], netbios[16];
    if (!read_host_name(host))
        return;
    unsigned i = 0;
    for (; i < 15 && host[i]; i++)
        netbios[i] = host[i] >= 'a' && host[i] <= 'z' ? host[i] - 32 : host[i];
    netbios[i] = 0;
    HANDLE key;
    if ((key = create_key(CONTROL L"ComputerName\\ComputerName", 0))) {
        set_string_if_other(key, L"ComputerName", netbios);
        NtClose(key);
    }
    if ((key = create_key(CONTROL L"ComputerName\\ActiveComputerName", REG_OPTION_VOLATILE))) {
        set_string(key, L"ComputerName", netbios);
        NtClose(key);
    }
    if ((key = create_key(MACHINE L"System\\CurrentControlSet\\Services\\Tcpip\\Parameters", 0))) {
        set_string_if_other(key, L"Hostname", host);
        set_string_if_other(key, L"NV Hostname", host);
        NtClose(key);
    }
}

static WCHAR *append(WCHAR *to, const WCHAR *text)
{
    while (*text)
        *to++ = *text++;
    *to = 0;
    return to;
}

static WCHAR *append_number(WCHAR *to, unsigned number)
{
    WCHAR digits[11];
    unsigned n = 0;
    do
        digits[n++] = L'0' + number % 10;
    while (number /= 10);
    while (n)
        *to++ = digits[--n];
    *to = 0;
    return to;
}

/* The processors' speed in MHz as the kernel measured it; 0 when it does not say. */
static unsigned processor_speed(void)
{
    struct {
        ULONG number, max, current, limit, max_idle, idle;
    } power[64];
    if (NtPowerInformation(11 /* ProcessorInformation */, NULL, 0, power, sizeof(power)))
        return 0;
    return power[0].max;
}

static HANDLE hardware_key(const WCHAR *name)
{
    WCHAR path[128];
    append(append(path, MACHINE L"Hardware\\Description\\System"), name);
    return create_key(path, REG_OPTION_VOLATILE);
}

static void describe_hardware(unsigned processors)
{
    unsigned r[4];
    WCHAR vendor[13], name[49], identifier[80], *p;
    cpuid(0, 0, r);
    const unsigned order[3] = { r[1], r[3], r[2] };
    for (unsigned i = 0; i < 12; i++)
        vendor[i] = (char)(order[i / 4] >> 8 * (i % 4));
    vendor[12] = 0;
    for (unsigned i = 0; i < 48; i++) {
        if (i % 16 == 0)
            cpuid(0x80000002 + i / 16, 0, r);
        name[i] = (char)(r[i % 16 / 4] >> 8 * (i % 4));
    }
    name[48] = 0;
    cpuid(1, 0, r);
    unsigned features = r[3], signature = r[0];
    unsigned family = signature >> 8 & 15, model = signature >> 4 & 15;
    if (family == 6 || family == 15)
        model |= signature >> 12 & 0xf0;
    if (family == 15)
        family += signature >> 20 & 0xff;
    p = append(identifier, vendor[0] == 'G' ? L"Intel64 Family " : L"AMD64 Family ");
    p = append(append_number(p, family), L" Model ");
    p = append(append_number(p, model), L" Stepping ");
    append_number(p, signature & 15);
    unsigned speed = processor_speed();

    HANDLE key = hardware_key(L"");
    if (!key)
        return;
    set_string(key, L"Identifier", L"AT compatible");
    NtClose(key);
    if ((key = hardware_key(L"\\BIOS"))) {
        set_string(key, L"SystemManufacturer", L"Silo");
        set_string(key, L"SystemProductName", L"Windows container");
        set_string(key, L"BIOSVendor", L"Silo");
        NtClose(key);
    }
    NtClose(hardware_key(L"\\CentralProcessor"));
    NtClose(hardware_key(L"\\FloatingPointProcessor"));
    for (unsigned i = 0; i < processors; i++) {
        WCHAR path[64];
        append_number(append(path, L"\\CentralProcessor\\"), i);
        if ((key = hardware_key(path))) {
            set_number(key, L"FeatureSet", features);
            set_string(key, L"Identifier", identifier);
            set_string(key, L"ProcessorNameString", name);
            set_string(key, L"VendorIdentifier", vendor);
            set_number(key, L"~MHz", speed);
            NtClose(key);
        }
        append_number(append(path, L"\\FloatingPointProcessor\\"), i);
        if ((key = hardware_key(path))) {
            set_string(key, L"Identifier", identifier);
            NtClose(key);
        }
    }
}

static const WCHAR *without_prefix(const WCHAR *path)
{
    return path[0] == '\\' && path[1] == '?' && path[2] == '?' && path[3] == '\\' ? path + 4 : path;
}

/* What MoveFileEx(MOVEFILE_DELAY_UNTIL_REBOOT) left: pairs of paths, an empty target deletes. */
static void move_pending(void)
{
    HANDLE key = create_key(CONTROL L"Session Manager", 0);
    if (!key)
        return;
    enum { LIMIT = 1 << 20 };
    BYTE *data = VirtualAlloc(NULL, LIMIT, MEM_COMMIT, PAGE_READWRITE);
    ULONG size = data ? get_value(key, L"PendingFileRenameOperations", data, LIMIT - 8) : 0;
    if (size) {
        const WCHAR *from = (const WCHAR *)data, *end = from + size / 2;
        while (from < end && *from) {
            const WCHAR *to = from;
            while (*to++)
                ;
            const WCHAR *next = to;
            while (next < end && *next++)
                ;
            from = without_prefix(from);
            if (*to) {
                BOOL replace = *to == '!';
                MoveFileExW(from, without_prefix(to + replace), replace ? MOVEFILE_REPLACE_EXISTING : 0);
            } else if (!DeleteFileW(from)) {
                RemoveDirectoryW(from);
            }
            from = *to ? next : to + 1;
        }
        delete_value(key, L"PendingFileRenameOperations");
    }
    NtClose(key);
}

static void start_services(void)
{
    static WCHAR command[] = L"C:\\windows\\system32\\services.exe";
    /* Without standard streams: services outlive the program whose streams we were given. */
    STARTUPINFOW startup = { .cb = sizeof(startup), .dwFlags = STARTF_USESTDHANDLES };
    PROCESS_INFORMATION process;
    if (CreateProcessW(command, command, NULL, NULL, TRUE, DETACHED_PROCESS, NULL, NULL, &startup,
                       &process)) {
        NtClose(process.hThread);
        NtClose(process.hProcess);
    }
}

typedef NTSTATUS(NTAPI *driver_entry)(void *driver, UNICODE_STRING *key);
typedef NTSTATUS(NTAPI *create_driver_function)(UNICODE_STRING *name, driver_entry entry);
typedef NTSTATUS(__cdecl *serve_function)(HANDLE stop);

static create_driver_function create_driver;

static void load_driver(const WCHAR *file, const WCHAR *text)
{
    UNICODE_STRING name;
    BYTE *module = (BYTE *)LoadLibraryW(file);
    if (!module)
        return;
    const IMAGE_DOS_HEADER *dos = (const void *)module;
    const IMAGE_NT_HEADERS *headers = (const void *)(module + dos->e_lfanew);
    RtlInitUnicodeString(&name, text);
    create_driver(&name, (driver_entry)(module + headers->OptionalHeader.AddressOfEntryPoint));
}

/*
 * The driver of network interfaces, for which hardly a program asks, and none at once. Its start costs
 * as much as that of a program: the first program's comes before. It asks the driver of networks,
 * which must be served then.
 */
static DWORD WINAPI load_interfaces(void *stop)
{
    enum { RUSH = 300 /* ms */ };
    if (WaitForSingleObject(stop, RUSH) == WAIT_TIMEOUT)
        load_driver(L"C:\\windows\\system32\\drivers\\ndis.sys", L"\\Driver\\NDIS");
    return 0;
}

/* Serves the drivers until the session ends. */
static void serve_drivers(void)
{
    HANDLE stop = NULL, loaded;
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    /* A session does not live for our sake. */
    NtSetInformationProcess(GetCurrentProcess(), (PROCESSINFOCLASS)ProcessWineMakeProcessSystem, &stop,
                            sizeof(stop));
    HMODULE kernel = LoadLibraryW(L"ntoskrnl.exe");
    create_driver = (create_driver_function)(void *)GetProcAddress(kernel, "IoCreateDriver");
    serve_function serve = (serve_function)(void *)GetProcAddress(kernel, "wine_ntoskrnl_main_loop");
    if (create_driver && serve) {
        load_driver(L"C:\\windows\\system32\\drivers\\mountmgr.sys", L"\\Driver\\MountMgr");
        load_driver(L"C:\\windows\\system32\\drivers\\nsiproxy.sys", L"\\Driver\\nsiproxy");
    }
    object(&attributes, &name, DRIVERS_EVENT, OBJ_OPENIF);
    if (NtCreateEvent(&loaded, EVENT_ALL_ACCESS, &attributes, NotificationEvent, FALSE) >= 0)
        NtSetEvent(loaded, NULL);
    if (create_driver && serve) {
        HANDLE thread = CreateThread(NULL, 0, load_interfaces, stop, 0, NULL);
        if (thread)
            NtClose(thread);
        serve(stop);
    }
}

void start(void)
{
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    object(&attributes, &name, L"\\KernelObjects\\__wineboot_event", OBJ_OPENIF | OBJ_INHERIT);
    if (NtCreateEvent(&boot_event, EVENT_ALL_ACCESS, &attributes, NotificationEvent, FALSE) < 0)
        ExitProcess(1);
    struct basic_information basic = { 0 };
    NtQuerySystemInformation(SystemBasicInformation, &basic, sizeof(basic), NULL);
    unsigned processors = basic.processors;
    fill_shared_data(processors);
    set_computer_name();
    move_pending();
    NtSetEvent(boot_event, NULL);
    start_services();
    describe_hardware(processors);
    serve_drivers();
    ExitProcess(0);
}
