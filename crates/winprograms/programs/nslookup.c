/* nslookup: asks a name server; only as one command, without a prompt of its own. */
#include <winsock2.h>
#include <ws2tcpip.h>

#include "rt.h"

#include <iphlpapi.h>

enum { A = 1, NS = 2, CNAME = 5, SOA = 6, PTR = 12, MX = 15, TXT = 16, AAAA = 28, SRV = 33 };

static const struct {
    const WCHAR *name;
    int type;
} types[] = { { L"A", A }, { L"AAAA", AAAA }, { L"CNAME", CNAME }, { L"MX", MX }, { L"NS", NS },
              { L"PTR", PTR }, { L"SOA", SOA }, { L"SRV", SRV }, { L"TXT", TXT } };

static unsigned char packet[4096];
static int packet_size;
static DWORD wait = 2000;
static unsigned tries = 3;

/* Writes a name as labels; its length, 0 when it is none. */
static int put_name(unsigned char *to, const char *name)
{
    unsigned char *start = to;
    while (*name) {
        const char *dot = strchr(name, '.');
        size_t n = dot ? (size_t)(dot - name) : strlen(name);
        if (!n || n > 63 || to - start + n > 250)
            return 0;
        *to++ = (unsigned char)n;
        memcpy(to, name, n);
        to += n;
        name += n + (dot != NULL);
    }
    *to++ = 0;
    return (int)(to - start);
}

/* Reads a name at `at`; where it ends, 0 when it is broken. */
static int take_name(int at, char *name)
{
    int end = 0;
    size_t used = 0;
    for (int hops = 0; hops < 128; hops++) {
        if (at >= packet_size)
            return 0;
        unsigned n = packet[at];
        if (n >= 0xc0) {
            if (at + 1 >= packet_size)
                return 0;
            if (!end)
                end = at + 2;
            at = (n & 0x3f) << 8 | packet[at + 1];
        } else if (!n) {
            name[used ? used - 1 : 0] = 0;
            return end ? end : at + 1;
        } else {
            if (at + 1 + (int)n > packet_size || used + n + 2 > 255)
                return 0;
            memcpy(name + used, packet + at + 1, n);
            used += n;
            name[used++] = '.';
            at += n + 1;
        }
    }
    return 0;
}

static int ask(const struct sockaddr *server, int server_size, const char *name, int type)
{
    unsigned char question[300] = { 0 };
    unsigned short id = (unsigned short)(GetTickCount() * 31 + GetCurrentProcessId());
    question[0] = id >> 8;
    question[1] = (unsigned char)id;
    question[2] = 1; /* recursion is wanted */
    question[5] = 1;
    int n = put_name(question + 12, name);
    if (!n)
        return -1;
    n += 12;
    question[n + 1] = (unsigned char)type;
    question[n + 3] = 1;
    n += 4;
    SOCKET s = socket(server->sa_family, SOCK_DGRAM, 0);
    if (s == INVALID_SOCKET)
        return -1;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, (const char *)&wait, sizeof(wait));
    int result = -1;
    if (!connect(s, server, server_size)) {
        for (unsigned i = 0; i < tries && result < 0; i++) {
            if (send(s, (const char *)question, n, 0) != n)
                break;
            packet_size = recv(s, (char *)packet, sizeof(packet), 0);
            if (packet_size >= 12 && packet[0] == question[0] && packet[1] == question[1])
                result = packet[3] & 15;
            else
                print(L"DNS request timed out.\n    timeout was %lu seconds.\n", wait / 1000);
        }
    }
    closesocket(s);
    return result;
}

static unsigned answers;

static void show_address(const WCHAR *text)
{
    print(answers++ ? L"\t  %s\n" : L"Address:  %s\n", text);
}

static void show_answers(const char *asked, int type)
{
    char name[256], text[256];
    int at = 12, count = packet[6] << 8 | packet[7];
    for (int i = packet[4] << 8 | packet[5]; i--;)
        if (!(at = take_name(at, name)) || (at += 4) > packet_size)
            return;
    BOOL addresses = type == A || type == AAAA;
    if (addresses)
        print(L"Name:    %S\n", asked);
    while (count--) {
        if (!(at = take_name(at, name)) || at + 10 > packet_size)
            return;
        int kind = packet[at] << 8 | packet[at + 1], size = packet[at + 8] << 8 | packet[at + 9];
        const unsigned char *d = packet + at + 10;
        int data = at + 10;
        at = data + size;
        if (at > packet_size)
            return;
        WCHAR address[64] = L"";
        DWORD n = 63;
        if (kind == A && size == 4) {
            _snwprintf(address, 63, L"%u.%u.%u.%u", d[0], d[1], d[2], d[3]);
        } else if (kind == AAAA && size == 16) {
            struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
            memcpy(&six.sin6_addr, d, 16);
            WSAAddressToStringW((struct sockaddr *)&six, sizeof(six), NULL, address, &n);
        }
        if (*address && addresses) {
            show_address(address);
        } else if (*address) {
            print(L"%S\tinternet address = %s\n", name, address);
        } else if ((kind == CNAME || kind == NS || kind == PTR) && take_name(data, text)) {
            print(kind == CNAME ? L"%S\tcanonical name = %S\n"
                      : kind == NS ? L"%S\tnameserver = %S\n"
                                   : L"%S\tname = %S\n", name, text);
        } else if (kind == MX && size > 2 && take_name(data + 2, text)) {
            print(L"%S\tMX preference = %d, mail exchanger = %S\n", name, d[0] << 8 | d[1], text);
        } else if (kind == SRV && size > 6 && take_name(data + 6, text)) {
            print(L"%S\tSRV service location:\n\t  priority       = %d\n\t  weight         = %d\n\t  port           = %d\n"
                  L"\t  svr hostname   = %S\n", name, d[0] << 8 | d[1], d[2] << 8 | d[3], d[4] << 8 | d[5], text);
        } else if (kind == TXT) {
            print(L"%S\ttext =\n\n", name);
            for (int i = 0; i < size && i + 1 + d[i] <= size; i += d[i] + 1)
                print(L"\t\"%.*S\"\n", d[i], d + i + 1);
        } else if (kind == SOA && take_name(data, text)) {
            print(L"%S\n\tprimary name server = %S\n", name, text);
        }
    }
    print_text(L"\n");
}

static int parse_server(const WCHAR *text, struct sockaddr_storage *to)
{
    ADDRINFOW hints = { .ai_socktype = SOCK_DGRAM }, *found;
    if (GetAddrInfoW(text, L"53", &hints, &found))
        return 0;
    memcpy(to, found->ai_addr, found->ai_addrlen);
    return (int)found->ai_addrlen;
}

/* The reverse name of an IPv4 address; FALSE when it is a name. */
static BOOL reverse(const char *text, char *to)
{
    unsigned part[4];
    for (int i = 0; i < 4; i++) {
        char *end;
        if (*text < '0' || *text > '9')
            return FALSE;
        part[i] = strtoul(text, &end, 10);
        if (part[i] > 255 || (i < 3 ? *end++ != '.' : *end))
            return FALSE;
        text = end;
    }
    _snprintf(to, 64, "%u.%u.%u.%u.in-addr.arpa", part[3], part[2], part[1], part[0]);
    return TRUE;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *name = NULL, *server = NULL;
    int type = 0;
    WSADATA wsa;
    for (int i = 1; i < argc; i++) {
        const WCHAR *a = argv[i], *value = wcschr(a, '=');
        if (is_option(a, L"?")) {
            print_text(L"nslookup [-type=A|AAAA|CNAME|MX|NS|PTR|SOA|SRV|TXT] [-timeout=s] [-retry=n] name [server]\n\n"
                       L"A prompt of its own is not supported.\n");
            return 0;
        } else if (*a == '-' && value) {
            ULONGLONG number = 0;
            parse_number(++value, &number);
            if (!_wcsnicmp(a, L"-q", 2) || !_wcsnicmp(a, L"-ty", 3)) {
                unsigned k = 0;
                while (k < 9 && !same(value, types[k].name))
                    k++;
                if (k == 9) {
                    complain(L"unknown query type: %s\n", value);
                    return 1;
                }
                type = types[k].type;
            } else if (!_wcsnicmp(a, L"-ti", 3) && number) {
                wait = (DWORD)number * 1000;
            } else if (!_wcsnicmp(a, L"-r", 2)) {
                tries = (unsigned)number + 1;
            }
        } else if (*a == '-' && a[1]) {
            complain(L"*** Invalid option: %s\n", a + 1);
            return 1;
        } else if (!name) {
            name = a;
        } else {
            server = a;
        }
    }
    if (!name) {
        complain(L"nslookup: a prompt of its own is not supported; name what to look up\n");
        return 1;
    }
    WSAStartup(0x202, &wsa);
    struct sockaddr_storage address = { 0 };
    WCHAR found[64] = L"";
    if (!server) {
        FIXED_INFO *info = allocate(16384);
        ULONG size = 16384;
        if (!GetNetworkParams(info, &size) && *info->DnsServerList.IpAddress.String)
            _snwprintf(found, 63, L"%S", info->DnsServerList.IpAddress.String);
        server = found;
    }
    int size = *server ? parse_server(server, &address) : 0;
    if (!size) {
        complain(L"*** Can't find server address for '%s'\n", *server ? server : L"this container");
        return 1;
    }
    print(L"Server:  %s\nAddress:  %s\n\n", server, server);
    char asked[256], host[256], turned[80];
    int length = WideCharToMultiByte(CP_UTF8, 0, name, -1, host, 255, NULL, NULL);
    if (length > 1 && host[length - 2] == '.')
        host[length - 2] = 0;
    strcpy(asked, host);
    if ((!type || type == PTR) && reverse(host, turned)) {
        strcpy(asked, turned);
        type = PTR;
    }
    int result = ask((struct sockaddr *)&address, size, asked, type ? type : A);
    if (!result) {
        show_answers(asked, type ? type : A);
    } else {
        static const WCHAR *reasons[] = { L"", L"Format error", L"Server failed", L"Non-existent domain",
                                          L"Not implemented", L"Query refused" };
        if (result < 0)
            print_text(L"*** Request timed-out\n");
        else
            complain(L"*** %s can't find %S: %s\n", server, host,
                     result < 6 ? reasons[result] : L"Unspecified error");
        return 1;
    }
    return 0;
}
