/*
 * certutil: certificates in stores, for authorities that a container trusts.
 *
 * Stores are Wine's: in the registry, so that they are in an image that is made of a container.
 * The authorities of the runtime are in `Root` too, for which nothing has to be done.
 */
#include "certutil.h"

#include <wincrypt.h>

typedef HCERTSTORE(WINAPI *open_function)(const char *, DWORD, HCRYPTPROV_LEGACY, DWORD, const void *);
typedef BOOL(WINAPI *add_function)(HCERTSTORE, DWORD, const BYTE *, DWORD, DWORD, PCCERT_CONTEXT *);
typedef PCCERT_CONTEXT(WINAPI *next_function)(HCERTSTORE, PCCERT_CONTEXT);
typedef DWORD(WINAPI *name_function)(DWORD, CERT_NAME_BLOB *, DWORD, WCHAR *, DWORD);
typedef BOOL(WINAPI *property_function)(PCCERT_CONTEXT, DWORD, void *, DWORD *);
typedef BOOL(WINAPI *end_function)(PCCERT_CONTEXT);
typedef BOOL(WINAPI *close_function)(HCERTSTORE, DWORD);

enum { HASH = 20, NAME_LIMIT = 512 };

/* Other verbs do not need this library, which is large. */
static void *function(const char *name)
{
    static HMODULE library;
    if (!library)
        library = LoadLibraryW(L"crypt32.dll");
    return library ? (void *)GetProcAddress(library, name) : NULL;
}

static HCERTSTORE open_store(const WCHAR *name, BOOL user, BOOL existing)
{
    /*
     * Of the machine's authorities Wine removes those that the runtime does not have. The user's,
     * which ContainerAdministrator and ContainerUser share, are trusted as well and stay.
     */
    user |= same(name, L"Root") || same(name, L"AuthRoot");
    open_function open = (open_function)function("CertOpenStore");
    DWORD flags = (user ? CERT_SYSTEM_STORE_CURRENT_USER : CERT_SYSTEM_STORE_LOCAL_MACHINE)
        | (existing ? CERT_STORE_OPEN_EXISTING_FLAG : 0);
    return open ? open((const char *)CERT_STORE_PROV_SYSTEM_W, 0, 0, flags, name) : NULL;
}

static void close_store(HCERTSTORE store)
{
    close_function close = (close_function)function("CertCloseStore");
    if (store && close)
        close(store, 0);
}

static void subject_of(PCCERT_CONTEXT certificate, WCHAR *name)
{
    name_function to_text = (name_function)function("CertNameToStrW");
    *name = 0;
    if (to_text)
        to_text(X509_ASN_ENCODING, &certificate->pCertInfo->Subject,
                CERT_X500_NAME_STR | CERT_NAME_STR_REVERSE_FLAG, name, NAME_LIMIT);
}

static BOOL hash_of(PCCERT_CONTEXT certificate, WCHAR *text)
{
    property_function property = (property_function)function("CertGetCertificateContextProperty");
    BYTE hash[HASH];
    DWORD size = sizeof(hash);
    if (!property || !property(certificate, CERT_SHA1_HASH_PROP_ID, hash, &size))
        return FALSE;
    for (unsigned i = 0; i < HASH; i++) {
        text[2 * i] = L"0123456789abcdef"[hash[i] >> 4];
        text[2 * i + 1] = L"0123456789abcdef"[hash[i] & 15];
    }
    text[2 * HASH] = 0;
    return TRUE;
}

static void let_go(PCCERT_CONTEXT certificate)
{
    end_function end = (end_function)function("CertFreeCertificateContext");
    if (end)
        end(certificate);
}

static DWORD add_one(HCERTSTORE store, const unsigned char *bytes, DWORD size)
{
    add_function add = (add_function)function("CertAddEncodedCertificateToStore");
    WCHAR name[NAME_LIMIT];
    PCCERT_CONTEXT certificate;
    if (!add
        || !add(store, X509_ASN_ENCODING, bytes, size, CERT_STORE_ADD_REPLACE_EXISTING, &certificate))
        return GetLastError() ? GetLastError() : ERROR_INVALID_DATA;
    subject_of(certificate, name);
    /* A store with certificates in use is not written when it is closed. */
    let_go(certificate);
    print(L"Certificate \"%s\" added to store.\n", name);
    return 0;
}

/* Adds what a file has: one certificate as it is, or any number in base64. */
static DWORD add_all(HCERTSTORE store, const unsigned char *bytes, DWORD size)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
    unsigned char *plain = allocate((size_t)size + 4);
    DWORD found = 0, error = 0;
    for (DWORD at = 0; !error && at + sizeof(begin) - 1 <= size; at++) {
        if (memcmp(bytes + at, begin, sizeof(begin) - 1))
            continue;
        DWORD start = at += sizeof(begin) - 1;
        while (at + sizeof(end) - 1 < size && memcmp(bytes + at, end, sizeof(end) - 1))
            at++;
        error = add_one(store, plain, decode(bytes + start, at - start, plain, FALSE));
        found++;
    }
    return found ? error : add_one(store, bytes, size);
}

int add_certificates(const WCHAR *store_name, const WCHAR *file, BOOL user)
{
    DWORD size = 0;
    unsigned char *bytes = read_all(file, &size);
    if (!bytes)
        return command_failed(L"addstore", GetLastError());
    HCERTSTORE store = open_store(store_name, user, FALSE);
    if (!store)
        return command_failed(L"addstore", GetLastError());
    print(L"%s\n", store_name);
    DWORD error = add_all(store, bytes, size);
    close_store(store);
    if (error)
        return command_failed(L"addstore", error);
    print_text(L"CertUtil: -addstore command completed successfully.\n");
    return 0;
}

/* Shows the certificates of a store, or the one with that SHA-1 hash or subject. */
int show_store(const WCHAR *store_name, const WCHAR *which, BOOL user)
{
    next_function next = (next_function)function("CertEnumCertificatesInStore");
    WCHAR name[NAME_LIMIT], hash[2 * HASH + 1];
    PCCERT_CONTEXT certificate = NULL;
    DWORD found = 0;
    HCERTSTORE store = open_store(store_name, user, TRUE);
    if (!store || !next)
        return command_failed(L"store", GetLastError());
    print(L"%s\n", store_name);
    while ((certificate = next(store, certificate))) {
        subject_of(certificate, name);
        if (!hash_of(certificate, hash)
            || (which && !same(which, hash) && !same(which, name)
                && !(name[0] && name[1] && name[2] == '=' && same(which, name + 3))))
            continue;
        print(L"================ Certificate %lu ================\n", found++);
        print(L"Subject: %s\nCert Hash(sha1): %s\n", name, hash);
    }
    close_store(store);
    if (which && !found)
        return command_failed(L"store", ERROR_NOT_FOUND);
    print_text(L"CertUtil: -store command completed successfully.\n");
    return 0;
}
