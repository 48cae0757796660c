/* certutil: check sums of files, base64, and certificates of stores. */
#include "certutil.h"

#include <bcrypt.h>

static void usage(void)
{
    print_text(L"CertUtil -hashfile file [MD5|SHA1|SHA256|SHA384|SHA512]\n"
               L"CertUtil [-f] -encode in out\n"
               L"CertUtil [-f] -decode in out\n"
               L"CertUtil [-f] -decodehex in out\n"
               L"CertUtil [-f] [-user] -addstore Root|CA|My file\n"
               L"CertUtil [-user] -store Root|CA|My [sha1|subject]\n\n"
               L"Other verbs are not supported.\n");
}

int command_failed(const WCHAR *verb, DWORD error)
{
    DWORD code = HRESULT_FROM_WIN32(error);
    print(L"CertUtil: -%s command FAILED: 0x%08lx (WIN32: %lu)\nCertUtil: %s\n", verb, code, error,
          error_text(error));
    return (int)code;
}

static int hash_file(const WCHAR *name, const WCHAR *algorithm)
{
    static const WCHAR *known[] = { L"MD5", L"SHA1", L"SHA256", L"SHA384", L"SHA512" };
    unsigned k = 0;
    while (k < 5 && !same(known[k], algorithm))
        k++;
    if (k == 5)
        return command_failed(L"hashfile", ERROR_INVALID_PARAMETER);
    HANDLE file = CreateFileW(name, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                              FILE_FLAG_SEQUENTIAL_SCAN, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return command_failed(L"hashfile", GetLastError());
    BCRYPT_ALG_HANDLE provider;
    BCRYPT_HASH_HANDLE hash;
    static unsigned char buffer[65536], digest[64];
    DWORD n, size, used;
    if (BCryptOpenAlgorithmProvider(&provider, known[k], NULL, 0)
        || BCryptGetProperty(provider, BCRYPT_HASH_LENGTH, (unsigned char *)&size, sizeof(size), &used, 0)
        || BCryptCreateHash(provider, &hash, NULL, 0, NULL, 0, 0))
        return command_failed(L"hashfile", ERROR_NOT_SUPPORTED);
    while (ReadFile(file, buffer, sizeof(buffer), &n, NULL) && n)
        BCryptHashData(hash, buffer, n, 0);
    BCryptFinishHash(hash, digest, size, 0);
    print(L"%s hash of %s:\n", known[k], name);
    for (unsigned i = 0; i < size; i++)
        print(L"%02x", digest[i]);
    print_text(L"\nCertUtil: -hashfile command completed successfully.\n");
    return 0;
}

unsigned char *read_all(const WCHAR *name, DWORD *size)
{
    HANDLE file = CreateFileW(name, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return NULL;
    DWORD room = GetFileSize(file, NULL);
    unsigned char *data = allocate((size_t)room + 4);
    ReadFile(file, data, room, size, NULL);
    CloseHandle(file);
    return data;
}

static int base64_value(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A'
        : c >= 'a' && c <= 'z'  ? c - 'a' + 26
        : c >= '0' && c <= '9'  ? c - '0' + 52
        : c == '+'              ? 62
        : c == '/'              ? 63
                                : -1;
}

static DWORD encode(const unsigned char *in, DWORD size, unsigned char *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char head[] = "-----BEGIN CERTIFICATE-----\r\n", tail[] = "-----END CERTIFICATE-----\r\n";
    unsigned char *to = out;
    memcpy(to, head, sizeof(head) - 1);
    to += sizeof(head) - 1;
    for (DWORD i = 0; i < size; i += 3) {
        unsigned v = in[i] << 16 | (i + 1 < size ? in[i + 1] << 8 : 0) | (i + 2 < size ? in[i + 2] : 0);
        for (unsigned k = 0; k < 4; k++)
            *to++ = k < 2 || i + k - 1 < size ? letters[v >> (18 - 6 * k) & 63] : '=';
        if (i % 48 == 45 || i + 3 >= size) {
            *to++ = '\r';
            *to++ = '\n';
        }
    }
    memcpy(to, tail, sizeof(tail) - 1);
    return to + sizeof(tail) - 1 - out;
}

DWORD decode(const unsigned char *in, DWORD size, unsigned char *out, BOOL hex)
{
    unsigned char *to = out;
    unsigned held = 0, bits = 0;
    for (DWORD i = 0; i < size; i++) {
        if (!hex && in[i] == '-') { /* a line that begins or ends a block */
            while (i < size && in[i] != '\n')
                i++;
            continue;
        }
        int c = in[i], value = hex ? (c >= '0' && c <= '9'           ? c - '0'
                                          : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                                     : -1)
                                   : base64_value(in[i]);
        if (value < 0)
            continue;
        held = held << (hex ? 4 : 6) | (unsigned)value;
        bits += hex ? 4 : 6;
        if (bits >= 8)
            *to++ = (unsigned char)(held >> (bits -= 8));
    }
    return to - out;
}

int program(int argc, WCHAR **argv)
{
    BOOL force = FALSE, user = FALSE;
    const WCHAR *verb = NULL, *names[3] = { NULL };
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"f"))
            force = TRUE;
        else if (is_option(argv[i], L"user"))
            user = TRUE;
        else if (is_option(argv[i], L"enterprise"))
            continue;
        else if (!verb && (*argv[i] == '-' || *argv[i] == '/'))
            verb = argv[i] + 1;
        else if (count < 3)
            names[count++] = argv[i];
    }
    if (!verb || same(verb, L"?")) {
        usage();
        return verb ? 0 : 1;
    }
    if (same(verb, L"hashfile") && count)
        return hash_file(names[0], names[1] ? names[1] : L"SHA1");
    if ((same(verb, L"encode") || same(verb, L"decode") || same(verb, L"decodehex")) && count == 2) {
        DWORD size = 0, done;
        unsigned char *in = read_all(names[0], &size);
        if (!in)
            return command_failed(verb, GetLastError());
        unsigned char *out = allocate((size_t)size * 3 / 2 + 256);
        DWORD made = same(verb, L"encode") ? encode(in, size, out)
                                           : decode(in, size, out, same(verb, L"decodehex"));
        HANDLE file = CreateFileW(names[1], GENERIC_WRITE, 0, NULL, force ? CREATE_ALWAYS : CREATE_NEW, 0,
                                  NULL);
        if (file == INVALID_HANDLE_VALUE)
            return command_failed(verb, GetLastError());
        WriteFile(file, out, made, &done, NULL);
        CloseHandle(file);
        print(L"Input Length = %lu\nOutput Length = %lu\nCertUtil: -%s command completed successfully.\n",
              size, made, verb);
        return 0;
    }
    if (same(verb, L"addstore") && count == 2)
        return add_certificates(names[0], names[1], user);
    if (same(verb, L"store") && count)
        return show_store(names[0], names[1], user);
    complain(L"CertUtil: -%s is not supported, or its arguments are missing; see CertUtil -?\n", verb);
    return (int)HRESULT_FROM_WIN32(ERROR_NOT_SUPPORTED);
}
