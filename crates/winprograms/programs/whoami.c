/* whoami: the account that this process runs as, its groups and privileges. */
#include "rt.h"

enum format { TABLE, LIST, CSV };
static enum format format;
static BOOL no_header;
static HANDLE token;
static BOOL is_user; /* ContainerUser: the administrators are only there to deny */

static void *information(TOKEN_INFORMATION_CLASS what)
{
    DWORD size = 0;
    GetTokenInformation(token, what, NULL, 0, &size);
    void *data = allocate(size + 1);
    GetTokenInformation(token, what, data, size, &size);
    return data;
}

static WCHAR *sid_text(SID *sid)
{
    WCHAR *text = format_text(L"S-%u-%u", sid->Revision, sid->IdentifierAuthority.Value[5]);
    for (unsigned i = 0; i < sid->SubAuthorityCount; i++) {
        WCHAR *more = format_text(L"%s-%lu", text, sid->SubAuthority[i]);
        release(text);
        text = more;
    }
    return text;
}

/* What the accounts of Windows containers have; Wine makes up one for every user. */
static WCHAR *user_sid(void)
{
    return copy_text(is_user ? L"S-1-5-93-2-2" : L"S-1-5-93-2-1");
}

static WCHAR *user_name(void)
{
    WCHAR name[257] = L"ContainerAdministrator", *text;
    GetEnvironmentVariableW(L"USERNAME", name, 256);
    text = format_text(L"user manager\\%s", name);
    for (WCHAR *c = text; *c; c++)
        *c = lower(*c);
    return text;
}

/* One table: `rows` times `columns` texts, the first row being its head. */
static void show(const WCHAR *title, const WCHAR **cells, unsigned columns, unsigned rows)
{
    if (format == TABLE) {
        print(L"\n%s\n", title);
        for (const WCHAR *c = title; *c; c++)
            print_text(L"-");
        print_text(L"\n\n");
    }
    size_t widths[4] = { 0 };
    for (unsigned i = 0; i < rows * columns; i++)
        widths[i % columns] = max(widths[i % columns], wcslen(cells[i]));
    for (unsigned r = no_header || format == LIST ? 1 : 0; r < rows; r++) {
        for (unsigned c = 0; c < columns; c++) {
            const WCHAR *cell = cells[r * columns + c];
            if (format == CSV)
                print(c ? L",\"%s\"" : L"\"%s\"", cell);
            else if (format == LIST)
                print(L"%s: %s\n", cells[c], cell);
            else
                print(c + 1 < columns ? L"%-*s " : L"%.0d%s", c + 1 < columns ? (int)widths[c] : 0, cell);
        }
        print_text(L"\n");
        if (r || format != TABLE)
            continue;
        for (unsigned c = 0; c < columns; c++) {
            for (size_t k = 0; k < widths[c]; k++)
                print_text(L"=");
            print_text(c + 1 < columns ? L" " : L"\n");
        }
    }
}

static void show_user(void)
{
    const WCHAR *cells[4] = { L"User Name", L"SID", user_name(), user_sid() };
    show(L"USER INFORMATION", cells, 2, 2);
}

static void show_groups(void)
{
    TOKEN_GROUPS *groups = information(TokenGroups);
    const WCHAR **cells = allocate((groups->GroupCount + 1) * 4 * sizeof(*cells));
    unsigned rows = 1;
    cells[0] = L"Group Name";
    cells[1] = L"Type";
    cells[2] = L"SID";
    cells[3] = L"Attributes";
    for (unsigned i = 0; i < groups->GroupCount; i++) {
        DWORD a = groups->Groups[i].Attributes;
        static WCHAR name[256], domain[256];
        DWORD n = 255, d = 255;
        SID_NAME_USE use = SidTypeUnknown;
        if ((a & SE_GROUP_LOGON_ID) == SE_GROUP_LOGON_ID)
            continue;
        SID *sid = groups->Groups[i].Sid;
        *name = *domain = 0;
        LookupAccountSidW(NULL, sid, name, &n, domain, &d, &use);
        const WCHAR **row = cells + rows++ * 4;
        row[0] = *domain ? format_text(L"%s\\%s", domain, name) : copy_text(name);
        row[1] = use == SidTypeAlias ? L"Alias" : use == SidTypeGroup ? L"Group" : L"Well-known group";
        row[2] = sid_text(sid);
        row[3] = a & SE_GROUP_USE_FOR_DENY_ONLY
            ? L"Group used for deny only"
            : format_text(L"%s%s%s", a & SE_GROUP_MANDATORY ? L"Mandatory group, " : L"",
                          a & SE_GROUP_ENABLED_BY_DEFAULT ? L"Enabled by default, " : L"",
                          a & SE_GROUP_OWNER ? L"Enabled group, Group owner" : L"Enabled group");
    }
    show(L"GROUP INFORMATION", cells, 4, rows);
}

static void show_privileges(void)
{
    TOKEN_PRIVILEGES *held = information(TokenPrivileges);
    const WCHAR **cells = allocate((held->PrivilegeCount + 1) * 2 * sizeof(*cells));
    cells[0] = L"Privilege Name";
    cells[1] = L"State";
    for (unsigned i = 0; i < held->PrivilegeCount; i++) {
        WCHAR name[128] = L"?";
        DWORD n = 127;
        LookupPrivilegeNameW(NULL, &held->Privileges[i].Luid, name, &n);
        cells[2 * i + 2] = copy_text(name);
        cells[2 * i + 3] = held->Privileges[i].Attributes & SE_PRIVILEGE_ENABLED ? L"Enabled" : L"Disabled";
    }
    show(L"PRIVILEGES INFORMATION", cells, 2, held->PrivilegeCount + 1);
}

int program(int argc, WCHAR **argv)
{
    BOOL user = FALSE, groups = FALSE, privileges = FALSE;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            print_text(L"WHOAMI [/USER] [/GROUPS] [/PRIV] [/ALL] [/FO TABLE|LIST|CSV] [/NH]\n\n"
                       L"Without options: the account's domain and name.\n");
            return 0;
        } else if (is_option(argv[i], L"user")) {
            user = TRUE;
        } else if (is_option(argv[i], L"groups")) {
            groups = TRUE;
        } else if (is_option(argv[i], L"priv")) {
            privileges = TRUE;
        } else if (is_option(argv[i], L"all")) {
            user = groups = privileges = TRUE;
        } else if (is_option(argv[i], L"nh")) {
            no_header = TRUE;
        } else if (is_option(argv[i], L"fo") && i + 1 < argc
                   && (same(argv[i + 1], L"table") || same(argv[i + 1], L"list")
                       || same(argv[i + 1], L"csv"))) {
            i++;
            format = same(argv[i], L"table") ? TABLE : same(argv[i], L"list") ? LIST : CSV;
        } else if (is_option(argv[i], L"upn") || is_option(argv[i], L"fqdn")
                   || is_option(argv[i], L"logonid")) {
            return failed(L"The account is none of a domain.");
        } else {
            complain(L"ERROR: Invalid argument/option - '%s'.\nType \"WHOAMI /?\" for usage.\n", argv[i]);
            return 1;
        }
    }
    OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token);
    TOKEN_GROUPS *all = information(TokenGroups);
    for (unsigned i = 0; i < all->GroupCount; i++)
        is_user |= (all->Groups[i].Attributes & SE_GROUP_USE_FOR_DENY_ONLY) != 0;
    if (user)
        show_user();
    if (groups)
        show_groups();
    if (privileges)
        show_privileges();
    if (!user && !groups && !privileges)
        print(L"%s\n", user_name());
    return 0;
}
