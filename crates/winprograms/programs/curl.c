/*
 * curl: fetches and sends by HTTP and HTTPS, with the options that build files and health checks
 * use, curl's exit codes and its messages. Wine's WinHTTP does the work; certificates are checked
 * against the system's store.
 */
#include "rt.h"

#include <winhttp.h>

enum exit_code {
    OK = 0,
    UNSUPPORTED_PROTOCOL = 1,
    BAD_OPTION = 2,
    BAD_URL = 3,
    NO_HOST = 6,
    NO_CONNECTION = 7,
    HTTP_ERROR = 22,
    WRITE_ERROR = 23,
    READ_ERROR = 26,
    TIMED_OUT = 28,
    TLS_ERROR = 35,
    TOO_MANY_REDIRECTS = 47,
    NO_REPLY = 52,
    RECEIVE_ERROR = 56,
    BAD_CERTIFICATE = 60,
};

static struct {
    const WCHAR *method, *agent, *user, *upload, *format, *referer, *cookie, *proxy;
    WCHAR *headers;
    char *body;
    size_t body_size;
    ULONGLONG retries, retry_delay, timeout, connect_timeout, redirects;
    BOOL follow, silent, show_errors, fail, insecure, head, include, verbose, get, make_directories;
    BOOL compressed, retry_all, fail_with_body, has_body;
} o = { .redirects = 50 };

static int report(int code, const WCHAR *format, ...)
{
    if (o.silent && !o.show_errors)
        return code;
    va_list list;
    WCHAR text[1024];
    va_start(list, format);
    _vsnwprintf(text, 1023, format, list);
    va_end(list);
    text[1023] = 0;
    complain(L"curl: (%d) %s\n", code, text);
    return code;
}

static void usage(void)
{
    print_text(
        L"Usage: curl [options...] <url>...\n"
        L" -o, --output <file>      Write to a file          -O, --remote-name   ...named as in the URL\n"
        L" -L, --location           Follow redirects         -f, --fail          Fail on HTTP errors\n"
        L" -s, --silent             No messages              -S, --show-error    ...but errors\n"
        L" -k, --insecure           Do not check certificates\n"
        L" -I, --head               Headers only             -i, --include       Headers too\n"
        L" -X, --request <method>   -H, --header <line>      -A, --user-agent <name>\n"
        L" -u, --user <name:pass>   -e, --referer <url>      -b, --cookie <data>\n"
        L" -d, --data <data|@file>  --data-raw  --data-binary  --json  -G, --get\n"
        L" -T, --upload-file <file> -x, --proxy <host:port>  --compressed\n"
        L" -m, --max-time <s>       --connect-timeout <s>    --max-redirs <n>\n"
        L" --retry <n>  --retry-delay <s>  --retry-all-errors  --create-dirs\n"
        L" -w, --write-out <format> %{http_code}, %{response_code}, %{size_download}, %{url_effective}\n"
        L" -v, --verbose            -V, --version            --url <url>\n");
}

static void add_text(WCHAR **to, const WCHAR *text)
{
    WCHAR *old = *to;
    *to = format_text(L"%s%s", old ? old : L"", text);
    release(old);
}

static void add_body(const void *data, size_t size, BOOL join)
{
    char *more = allocate(o.body_size + size + 2);
    memcpy(more, o.body, o.body_size);
    if (join && o.has_body)
        more[o.body_size++] = '&';
    memcpy(more + o.body_size, data, size);
    o.body_size += size;
    release(o.body);
    o.body = more;
    o.has_body = TRUE;
}

static char *read_whole(const WCHAR *name, size_t *size)
{
    HANDLE file = wcscmp(name, L"-") ? CreateFileW(name, GENERIC_READ, FILE_SHARE_READ, NULL,
                                                   OPEN_EXISTING, 0, NULL)
                                     : GetStdHandle(STD_INPUT_HANDLE);
    if (file == INVALID_HANDLE_VALUE)
        return NULL;
    size_t room = 65536;
    char *data = allocate(room + 1);
    DWORD n;
    *size = 0;
    while (ReadFile(file, data + *size, room - *size, &n, NULL) && n) {
        if ((*size += n) == room) {
            char *more = allocate(room * 2 + 1);
            memcpy(more, data, room);
            release(data);
            data = more;
            room *= 2;
        }
    }
    return data;
}

/* One body argument: `mode` is d (lines joined), b (as it is) or r (no @). */
static int take_data(const WCHAR *text, char mode)
{
    size_t size;
    if (*text == '@' && mode != 'r') {
        char *data = read_whole(text + 1, &size);
        if (!data)
            return report(READ_ERROR, L"Failed to open %s", text + 1);
        if (mode == 'd') {
            size_t kept = 0;
            for (size_t i = 0; i < size; i++)
                if (data[i] != '\r' && data[i] != '\n')
                    data[kept++] = data[i];
            size = kept;
        }
        add_body(data, size, TRUE);
        release(data);
        return 0;
    }
    int n = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *bytes = allocate(n);
    WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, n, NULL, NULL);
    add_body(bytes, n - 1, TRUE);
    release(bytes);
    return 0;
}

static int connection_error(const URL_COMPONENTS *url)
{
    DWORD error = GetLastError();
    const WCHAR *host = url->lpszHostName;
    switch (error) {
    case ERROR_WINHTTP_NAME_NOT_RESOLVED: return report(NO_HOST, L"Could not resolve host: %s", host);
    case ERROR_WINHTTP_CANNOT_CONNECT:
        return report(NO_CONNECTION, L"Failed to connect to %s port %u: Could not connect to server",
                      host, url->nPort);
    case ERROR_WINHTTP_TIMEOUT: return report(TIMED_OUT, L"Operation timed out");
    case ERROR_WINHTTP_SECURE_INVALID_CA:
    case ERROR_WINHTTP_SECURE_CERT_CN_INVALID:
    case ERROR_WINHTTP_SECURE_CERT_DATE_INVALID:
    case ERROR_WINHTTP_SECURE_INVALID_CERT:
    case ERROR_WINHTTP_SECURE_FAILURE:
        return report(BAD_CERTIFICATE, L"SSL certificate problem: the certificate of %s is not trusted; "
                                       L"use -k to go on without a check", host);
    case ERROR_WINHTTP_SECURE_CHANNEL_ERROR:
        /* Wine says so for certificates of unknown authorities as well. */
        return o.insecure ? report(TLS_ERROR, L"TLS connect error with %s", host)
                          : report(BAD_CERTIFICATE, L"SSL certificate problem: the certificate of %s is "
                                                    L"not trusted, or TLS failed", host);
    case ERROR_WINHTTP_REDIRECT_FAILED:
        return report(TOO_MANY_REDIRECTS, L"Maximum (%I64u) redirects followed", o.redirects);
    case ERROR_WINHTTP_INVALID_SERVER_RESPONSE:
    case ERROR_WINHTTP_CONNECTION_ERROR: return report(NO_REPLY, L"Empty reply from server");
    default:
        return report(RECEIVE_ERROR, L"Failure with %s: %s (%lu)", host, error_text(error), error);
    }
}

static HANDLE open_output(const WCHAR *name)
{
    if (!name || !wcscmp(name, L"-"))
        return GetStdHandle(STD_OUTPUT_HANDLE);
    if (o.make_directories) {
        WCHAR *path = copy_text(name);
        for (WCHAR *c = path; *c; c++)
            if ((*c == '\\' || *c == '/') && c > path && c[-1] != ':') {
                WCHAR kept = *c;
                *c = 0;
                CreateDirectoryW(path, NULL);
                *c = kept;
            }
        release(path);
    }
    return CreateFileW(same(name, L"/dev/null") ? L"NUL" : name, GENERIC_WRITE, FILE_SHARE_READ, NULL,
                       CREATE_ALWAYS, 0, NULL);
}

static int write_data(HANDLE *out, const WCHAR *name, const void *data, DWORD size)
{
    DWORD done;
    if (!*out && (*out = open_output(name)) == INVALID_HANDLE_VALUE) {
        *out = NULL;
        return report(WRITE_ERROR, L"Failed to open the file %s: %s", name, error_text(GetLastError()));
    }
    while (size) {
        if (!WriteFile(*out, data, size, &done, NULL))
            return report(WRITE_ERROR, L"Failure writing output to destination");
        data = (const char *)data + done;
        size -= done;
    }
    return 0;
}

static void write_out(unsigned status, ULONGLONG size, const WCHAR *url)
{
    WCHAR *text = NULL;
    for (const WCHAR *c = o.format; *c; c++) {
        WCHAR letter[2] = { *c, 0 }, number[24];
        if (c[0] == '\\' && (c[1] == 'n' || c[1] == 'r' || c[1] == 't')) {
            add_text(&text, c[1] == 'n' ? L"\n" : c[1] == 'r' ? L"\r" : L"\t");
            c++;
            continue;
        }
        const WCHAR *end = c[0] == '%' && c[1] == '{' ? wcschr(c, '}') : NULL;
        if (!end) {
            add_text(&text, letter);
            continue;
        }
        size_t n = end - c - 2;
        _snwprintf(number, 23, L"%03u", status);
        if (!wcsncmp(c + 2, L"http_code", n) || !wcsncmp(c + 2, L"response_code", n))
            add_text(&text, number);
        else if (!wcsncmp(c + 2, L"url_effective", n))
            add_text(&text, url);
        else if (!wcsncmp(c + 2, L"size_download", n)) {
            _snwprintf(number, 23, L"%I64u", size);
            add_text(&text, number);
        }
        c = end;
    }
    if (text)
        print_text(text);
    release(text);
}

static HINTERNET open_session(BOOL secure)
{
    WCHAR proxy[512] = L"", except[512] = L"";
    if (o.proxy)
        _snwprintf(proxy, 511, L"%s", o.proxy);
    else if (!GetEnvironmentVariableW(secure ? L"https_proxy" : L"http_proxy", proxy, 511))
        GetEnvironmentVariableW(L"all_proxy", proxy, 511);
    GetEnvironmentVariableW(L"no_proxy", except, 511);
    for (WCHAR *c = except; *c; c++)
        if (*c == ',')
            *c = ';';
    WCHAR *name = proxy, *scheme = wcsstr(proxy, L"://");
    if (scheme)
        name = scheme + 3;
    size_t n = wcslen(name);
    if (n && name[n - 1] == '/')
        name[n - 1] = 0;
    HINTERNET session = WinHttpOpen(o.agent ? o.agent : L"curl/8.9.1",
                                    *name ? WINHTTP_ACCESS_TYPE_NAMED_PROXY : WINHTTP_ACCESS_TYPE_NO_PROXY,
                                    *name ? name : NULL, *name && *except ? except : NULL, 0);
    if (session) {
        int connect = o.connect_timeout ? (int)o.connect_timeout * 1000 : 120000;
        int receive = o.timeout ? (int)o.timeout * 1000 : 0;
        WinHttpSetTimeouts(session, receive, connect, receive, receive);
    }
    return session;
}

static WCHAR *header_text(HINTERNET request)
{
    DWORD size = 0;
    WinHttpQueryHeaders(request, WINHTTP_QUERY_RAW_HEADERS_CRLF, NULL, NULL, &size, NULL);
    WCHAR *text = allocate(size + 2);
    WinHttpQueryHeaders(request, WINHTTP_QUERY_RAW_HEADERS_CRLF, NULL, text, &size, NULL);
    return text;
}

static int copy_file(const WCHAR *url, const WCHAR *name)
{
    const WCHAR *path = url + 7;
    while (*path == '/' && path[1] && path[2] == ':')
        path++;
    HANDLE in = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL), out = NULL;
    if (in == INVALID_HANDLE_VALUE)
        return report(37, L"Couldn't open file %s", path);
    static char buffer[65536];
    DWORD n;
    int code = 0;
    while (!code && ReadFile(in, buffer, sizeof(buffer), &n, NULL) && n)
        code = write_data(&out, name, buffer, n);
    return code;
}

struct attempt {
    unsigned status;
    BOOL passing; /* the error may go away by itself */
};

/* Sends the request and takes the answer's head. */
static int exchange(HINTERNET request, const URL_COMPONENTS *url, struct attempt *attempt)
{
    DWORD on;
    if (o.insecure) {
        on = SECURITY_FLAG_IGNORE_UNKNOWN_CA | SECURITY_FLAG_IGNORE_CERT_DATE_INVALID
            | SECURITY_FLAG_IGNORE_CERT_CN_INVALID | SECURITY_FLAG_IGNORE_CERT_WRONG_USAGE;
        WinHttpSetOption(request, WINHTTP_OPTION_SECURITY_FLAGS, &on, sizeof(on));
    }
    on = o.follow ? WINHTTP_OPTION_REDIRECT_POLICY_ALWAYS : WINHTTP_OPTION_REDIRECT_POLICY_NEVER;
    WinHttpSetOption(request, WINHTTP_OPTION_REDIRECT_POLICY, &on, sizeof(on));
    on = (DWORD)o.redirects;
    WinHttpSetOption(request, WINHTTP_OPTION_MAX_HTTP_AUTOMATIC_REDIRECTS, &on, sizeof(on));
    if (o.compressed) {
        on = 3; /* gzip and deflate */
        WinHttpSetOption(request, 118 /* WINHTTP_OPTION_DECOMPRESSION */, &on, sizeof(on));
    }
    if (o.headers)
        WinHttpAddRequestHeaders(request, o.headers, (DWORD)-1,
                                 WINHTTP_ADDREQ_FLAG_ADD | WINHTTP_ADDREQ_FLAG_REPLACE);
    if (!WinHttpSendRequest(request, NULL, 0, o.get ? NULL : o.body, o.get ? 0 : (DWORD)o.body_size,
                            o.get ? 0 : (DWORD)o.body_size, 0)
        || !WinHttpReceiveResponse(request, NULL)) {
        DWORD error = GetLastError();
        attempt->passing = error == ERROR_WINHTTP_TIMEOUT || o.retry_all
            || error == ERROR_WINHTTP_NAME_NOT_RESOLVED;
        SetLastError(error);
        return connection_error(url);
    }
    DWORD status = 0, size = sizeof(status);
    WinHttpQueryHeaders(request, WINHTTP_QUERY_STATUS_CODE | WINHTTP_QUERY_FLAG_NUMBER, NULL, &status,
                        &size, NULL);
    attempt->status = status;
    attempt->passing = status == 408 || status == 429 || status == 500 || status == 502 || status == 503
        || status == 504;
    return 0;
}

static int transfer(const WCHAR *text, const WCHAR *name, struct attempt *attempt)
{
    URL_COMPONENTS url = { .dwStructSize = sizeof(url) };
    static WCHAR host[512], path[8192], user[256], password[256];
    url.lpszHostName = host;
    url.dwHostNameLength = 511;
    url.lpszUrlPath = path;
    url.dwUrlPathLength = 8191;
    url.lpszUserName = user;
    url.dwUserNameLength = 255;
    url.lpszPassword = password;
    url.dwPasswordLength = 255;
    *user = *password = 0;
    if (!WinHttpCrackUrl(text, 0, 0, &url) || !*host)
        return report(BAD_URL, L"URL using bad/illegal format or missing URL");
    if (o.get && o.has_body) {
        size_t n = wcslen(path);
        _snwprintf(path + n, 8191 - n, L"%c%.*S", wcschr(path, '?') ? '&' : '?', (int)o.body_size, o.body);
    }
    BOOL secure = url.nScheme == INTERNET_SCHEME_HTTPS;
    HINTERNET session = open_session(secure), connection = NULL, request = NULL;
    const WCHAR *method = o.method          ? o.method
        : o.head                            ? L"HEAD"
        : o.upload                          ? L"PUT"
        : o.has_body && !o.get              ? L"POST"
                                            : L"GET";
    if (session)
        connection = WinHttpConnect(session, host, url.nPort, 0);
    if (connection)
        request = WinHttpOpenRequest(connection, method, *path ? path : L"/", NULL,
                                     o.referer ? o.referer : WINHTTP_NO_REFERER,
                                     WINHTTP_DEFAULT_ACCEPT_TYPES, secure ? WINHTTP_FLAG_SECURE : 0);
    if (!request)
        return connection_error(&url);
    if (o.user || *user) {
        WCHAR *copy = o.user ? copy_text(o.user) : format_text(L"%s:%s", user, password);
        char bytes[512], encoded[700];
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        int n = WideCharToMultiByte(CP_UTF8, 0, copy, -1, bytes, 509, NULL, NULL), to = 0;
        bytes[n] = bytes[n + 1] = 0;
        for (int i = 0; i < n - 1; i += 3) {
            unsigned v = (unsigned char)bytes[i] << 16 | (unsigned char)bytes[i + 1] << 8
                | (i + 2 < n ? (unsigned char)bytes[i + 2] : 0);
            for (int k = 0; k < 4; k++)
                encoded[to++] = i + k - 1 < n - 1 || k < 2 ? letters[v >> (18 - 6 * k) & 63] : '=';
        }
        encoded[to] = 0;
        WCHAR *line = format_text(L"Authorization: Basic %S", encoded);
        WinHttpAddRequestHeaders(request, line, (DWORD)-1, WINHTTP_ADDREQ_FLAG_ADD);
        release(line);
        release(copy);
    }
    if (o.verbose)
        complain(L"> %s %s\n> Host: %s\n", method, *path ? path : L"/", host);
    int code = exchange(request, &url, attempt);
    HANDLE out = NULL;
    ULONGLONG total = 0, end = o.timeout ? GetTickCount64() + o.timeout * 1000 : 0;
    if (!code && (o.include || o.head || o.verbose)) {
        WCHAR *head = header_text(request);
        if (o.verbose)
            complain(L"%s\n", head);
        if (o.include || o.head) {
            int n = WideCharToMultiByte(CP_UTF8, 0, head, -1, NULL, 0, NULL, NULL);
            char *bytes = allocate(n);
            WideCharToMultiByte(CP_UTF8, 0, head, -1, bytes, n, NULL, NULL);
            code = write_data(&out, name, bytes, n - 1);
            release(bytes);
        }
        release(head);
    }
    BOOL refused = o.fail && attempt->status >= 400;
    if (!code && (!refused || o.fail_with_body) && !o.head) {
        static char buffer[65536];
        DWORD n;
        code = write_data(&out, name, "", 0);
        while (!code) {
            if (!WinHttpReadData(request, buffer, sizeof(buffer), &n)) {
                attempt->passing = TRUE;
                code = report(RECEIVE_ERROR, L"Recv failure: %s", error_text(GetLastError()));
            } else if (!n) {
                break;
            } else if (end && GetTickCount64() > end) {
                code = report(TIMED_OUT, L"Operation timed out after %I64u seconds", o.timeout);
            } else {
                code = write_data(&out, name, buffer, n);
                total += n;
            }
        }
        DWORD length, size = sizeof(length);
        if (!code && WinHttpQueryHeaders(request, WINHTTP_QUERY_CONTENT_LENGTH | WINHTTP_QUERY_FLAG_NUMBER,
                                         NULL, &length, &size, NULL)
            && !o.compressed && total < length) {
            attempt->passing = TRUE;
            code = report(18, L"end of response with %I64u bytes missing", length - total);
        }
    }
    if (!code && refused)
        code = report(HTTP_ERROR, L"The requested URL returned error: %u", attempt->status);
    if (out && out != GetStdHandle(STD_OUTPUT_HANDLE))
        CloseHandle(out);
    if (o.format)
        write_out(attempt->status, total, text);
    WinHttpCloseHandle(request);
    WinHttpCloseHandle(connection);
    WinHttpCloseHandle(session);
    return code;
}

static int fetch(const WCHAR *given, const WCHAR *name, BOOL remote_name)
{
    WCHAR *url = wcsstr(given, L"://") ? copy_text(given) : format_text(L"http://%s", given);
    if (remote_name) {
        WCHAR *copy = copy_text(url), *query = wcschr(copy, '?'), *last;
        if (query)
            *query = 0;
        last = wcsrchr(copy, '/');
        if (!last[1] || last < wcsstr(copy, L"://") + 3)
            return report(WRITE_ERROR, L"Remote file name has no length");
        name = last + 1;
    }
    if (!_wcsnicmp(url, L"file://", 7))
        return copy_file(url, name);
    if (_wcsnicmp(url, L"http://", 7) && _wcsnicmp(url, L"https://", 8))
        return report(UNSUPPORTED_PROTOCOL, L"Protocol \"%.*s\" not supported",
                      (int)(wcsstr(url, L"://") - url), url);
    ULONGLONG delay = 1;
    for (ULONGLONG tries = 0;; tries++) {
        struct attempt attempt = { 0 };
        int code = transfer(url, name, &attempt);
        if (tries >= o.retries || !(code || attempt.status >= 400) || !attempt.passing)
            return code;
        if (!o.silent)
            complain(L"Warning: Problem. Will retry in %I64u seconds. %I64u retries left.\n",
                     o.retry_delay ? o.retry_delay : delay, o.retries - tries);
        Sleep((DWORD)(o.retry_delay ? o.retry_delay : delay) * 1000);
        delay = min(delay * 2, 600);
    }
}

/* Long names; the letter is that of the short form, digits stand where there is none. */
static const struct {
    const WCHAR *name;
    char letter;
    BOOL value;
} longs[] = {
    { L"output", 'o', 1 },        { L"remote-name", 'O', 0 },    { L"location", 'L', 0 },
    { L"silent", 's', 0 },        { L"show-error", 'S', 0 },     { L"fail", 'f', 0 },
    { L"insecure", 'k', 0 },      { L"header", 'H', 1 },         { L"request", 'X', 1 },
    { L"data", 'd', 1 },          { L"data-ascii", 'd', 1 },     { L"data-raw", '1', 1 },
    { L"data-binary", '2', 1 },   { L"json", '3', 1 },           { L"head", 'I', 0 },
    { L"include", 'i', 0 },       { L"user", 'u', 1 },           { L"user-agent", 'A', 1 },
    { L"retry", '4', 1 },         { L"retry-delay", '5', 1 },    { L"max-time", 'm', 1 },
    { L"connect-timeout", '6', 1 }, { L"upload-file", 'T', 1 },  { L"write-out", 'w', 1 },
    { L"referer", 'e', 1 },       { L"cookie", 'b', 1 },         { L"proxy", 'x', 1 },
    { L"create-dirs", '7', 0 },   { L"compressed", '8', 0 },     { L"url", '9', 1 },
    { L"verbose", 'v', 0 },       { L"version", 'V', 0 },        { L"help", 'h', 0 },
    { L"get", 'G', 0 },           { L"max-redirs", 'a', 1 },     { L"retry-all-errors", 'c', 0 },
    { L"fail-with-body", 'g', 0 }, { L"progress-bar", '#', 0 },  { L"no-progress-meter", '#', 0 },
    { L"ssl-no-revoke", '#', 0 }, { L"tlsv1.2", '#', 0 },        { L"tlsv1.3", '#', 0 },
    { L"http1.1", '#', 0 },       { L"http2", '#', 0 },          { L"ipv4", '#', 0 },
    { L"ipv6", '#', 0 },          { L"globoff", '#', 0 },        { L"no-buffer", '#', 0 },
    { L"retry-connrefused", 'c', 0 }, { L"proto", '!', 1 },      { L"tls-max", '!', 1 },
    { L"disable", '#', 0 },
};

static const WCHAR *urls[64], *outputs[64];
static BOOL remote[64];
static int url_count, output_count;

static int take_option(char letter, const WCHAR *value)
{
    switch (letter) {
    case 'o': if (output_count < 64) outputs[output_count++] = value; break;
    case 'O': if (output_count < 64) remote[output_count++] = TRUE; break;
    case 'L': o.follow = TRUE; break;
    case 's': o.silent = TRUE; break;
    case 'S': o.show_errors = TRUE; break;
    case 'f': o.fail = TRUE; break;
    case 'g': o.fail = o.fail_with_body = TRUE; break;
    case 'k': o.insecure = TRUE; break;
    case 'H':
        add_text(&o.headers, value);
        add_text(&o.headers, L"\r\n");
        break;
    case 'b':
        add_text(&o.headers, L"Cookie: ");
        add_text(&o.headers, value);
        add_text(&o.headers, L"\r\n");
        break;
    case 'X': o.method = value; break;
    case 'd': return take_data(value, 'd');
    case '1': return take_data(value, 'r');
    case '2': return take_data(value, 'b');
    case '3':
        add_text(&o.headers, L"Content-Type: application/json\r\nAccept: application/json\r\n");
        return take_data(value, 'b');
    case 'I': o.head = TRUE; break;
    case 'i': o.include = TRUE; break;
    case 'u': o.user = value; break;
    case 'A': o.agent = value; break;
    case '4': if (!parse_number(value, &o.retries)) return BAD_OPTION; break;
    case '5': if (!parse_number(value, &o.retry_delay)) return BAD_OPTION; break;
    case 'a': if (!parse_number(value, &o.redirects)) return BAD_OPTION; break;
    case 'm': o.timeout = (ULONGLONG)wcstoul(value, NULL, 10); break;
    case '6': o.connect_timeout = (ULONGLONG)wcstoul(value, NULL, 10); break;
    case 'T': o.upload = value; break;
    case 'w': o.format = value; break;
    case 'e': o.referer = value; break;
    case 'x': o.proxy = value; break;
    case '7': o.make_directories = TRUE; break;
    case '8': o.compressed = TRUE; break;
    case '9': if (url_count < 64) urls[url_count++] = value; break;
    case 'v': o.verbose = TRUE; break;
    case 'G': o.get = TRUE; break;
    case 'c': o.retry_all = TRUE; break;
    case '#':
    case '!':
    case 'N':
    case '0': break; /* nothing that would change the result here */
    case 'V':
        print_text(L"curl 8.9.1 (Windows) WinHTTP (Silo's own, by curl's options)\n"
                   L"Protocols: file http https\n");
        ExitProcess(0);
    case 'h':
        usage();
        ExitProcess(0);
    default: return BAD_OPTION;
    }
    return 0;
}

static int unknown(const WCHAR *option)
{
    complain(L"curl: option %s: is unknown or not supported\ncurl: try 'curl --help' for more "
             L"information\n", option);
    return BAD_OPTION;
}

int program(int argc, WCHAR **argv)
{
    int code = 0;
    for (int i = 1; i < argc && !code; i++) {
        const WCHAR *a = argv[i];
        if (a[0] != '-' || !a[1]) {
            if (url_count < 64)
                urls[url_count++] = a;
        } else if (a[1] == '-') {
            unsigned k = 0, n = sizeof(longs) / sizeof(*longs);
            while (k < n && wcscmp(longs[k].name, a + 2))
                k++;
            if (k == n || (longs[k].value && i + 1 >= argc))
                return unknown(a);
            if ((code = take_option(longs[k].letter, longs[k].value ? argv[++i] : NULL)) == BAD_OPTION)
                return unknown(a);
        } else {
            for (const WCHAR *c = a + 1; *c && !code; c++) {
                BOOL takes = *c < 128 && strchr("oHXduAmTwebxEFKcCyYzZPQrtUD", *c) != NULL;
                if (*c >= '0' && *c <= '9' && *c != '4' && *c != '6' && *c != '0')
                    return unknown(a);
                if (strchr("46", *c) || *c == 'g')
                    continue;
                if (*c == 'c' || *c == 'a')
                    return unknown(a);
                if (!takes) {
                    if ((code = take_option((char)*c, NULL)) == BAD_OPTION)
                        return unknown(a);
                    continue;
                }
                const WCHAR *value = c[1] ? c + 1 : ++i < argc ? argv[i] : NULL;
                if (!value || (code = take_option((char)*c, value)) == BAD_OPTION)
                    return unknown(a);
                break;
            }
        }
    }
    if (code)
        return code;
    if (!url_count) {
        complain(L"curl: no URL specified\ncurl: try 'curl --help' for more information\n");
        return BAD_OPTION;
    }
    if (o.upload) {
        if (!(o.body = read_whole(o.upload, &o.body_size)))
            return report(READ_ERROR, L"Failed to open %s", o.upload);
        o.has_body = TRUE;
    } else if (o.has_body && !o.get) {
        WCHAR *given = o.headers, *low = given ? copy_text(given) : NULL;
        for (WCHAR *c = low; c && *c; c++)
            *c = lower(*c);
        if (!low || !wcsstr(low, L"content-type:"))
            add_text(&o.headers, L"Content-Type: application/x-www-form-urlencoded\r\n");
    }
    for (int i = 0; i < url_count; i++) {
        int one = fetch(urls[i], i < output_count ? outputs[i] : NULL, i < output_count && remote[i]);
        if (one)
            code = one;
    }
    return code;
}
