/* Changes the registry as C:\work\script says, then writes what is below the keys of its arguments
 * to C:\work\dump. Lines of both, in UTF-8 with tabs between fields:
 *     set KEY NAME TYPE DATA     NAME is empty for the default value, DATA is hexadecimal
 *     value KEY NAME             deletes a value
 *     key KEY                    deletes a key with all below it
 *     make KEY                   makes a key; a dump has one for each key */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <winternl.h>

NTSTATUS NTAPI NtSetValueKey(HANDLE, UNICODE_STRING *, ULONG, ULONG, void *, ULONG);

static FILE *out;

static WCHAR *wide(const char *text)
{
    int n = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    WCHAR *result = malloc(2 * n);
    MultiByteToWideChar(CP_UTF8, 0, text, -1, result, n);
    return result;
}

static void die(const char *what, long code)
{
    fprintf(stderr, "%s: %ld\n", what, code);
    exit(1);
}

static HKEY root_of(const char **key)
{
    HKEY root = strncmp(*key, "HKLM\\", 5) ? HKEY_CURRENT_USER : HKEY_LOCAL_MACHINE;
    *key += 5;
    return root;
}

static unsigned digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void change(char *line)
{
    char *field[5] = { line };
    for (int i = 1; i < 5 && (field[i] = strchr(field[i - 1], '\t')); i++)
        *field[i]++ = 0;
    const char *key = field[1];
    HKEY root = root_of(&key), opened;
    WCHAR *path = wide(key);
    LSTATUS status;
    if (!strcmp(field[0], "key")) {
        status = RegDeleteTreeW(root, path);
    } else if (!(status = RegCreateKeyExW(root, path, 0, NULL, 0, KEY_ALL_ACCESS, NULL, &opened,
                                          NULL))) {
        if (!strcmp(field[0], "set")) {
            size_t size = strlen(field[4]) / 2;
            BYTE *data = malloc(size + 1);
            for (size_t i = 0; i < size; i++)
                data[i] = digit(field[4][2 * i]) << 4 | digit(field[4][2 * i + 1]);
            UNICODE_STRING name;
            RtlInitUnicodeString(&name, wide(field[2]));
            /* Unlike RegSetValueEx it takes strings as they are. */
            status = NtSetValueKey(opened, &name, 0, strtoul(field[3], NULL, 10), data, size);
            free(data);
        } else if (!strcmp(field[0], "value")) {
            status = RegDeleteValueW(opened, wide(field[2]));
        }
        RegCloseKey(opened);
    }
    if (status)
        die(line, status);
}

static void put(const WCHAR *text)
{
    char bytes[4096];
    WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof(bytes), NULL, NULL);
    fputs(bytes, out);
}

static void dump(HKEY key, const WCHAR *path)
{
    static WCHAR name[16384];
    DWORD size = 16384, type, bytes;
    fputs("make\t", out);
    put(path);
    fputs("\n", out);
    for (DWORD i = 0; !RegEnumValueW(key, i, name, &size, NULL, &type, NULL, &bytes); i++) {
        BYTE *data = malloc(bytes + 1);
        if (RegQueryValueExW(key, name, NULL, &type, data, &bytes))
            die("query", i);
        fputs("set\t", out);
        put(path);
        fputs("\t", out);
        put(name);
        fprintf(out, "\t%lu\t", type);
        for (DWORD b = 0; b < bytes; b++)
            fprintf(out, "%02x", data[b]);
        fputs("\n", out);
        free(data);
        size = 16384;
    }
    WCHAR child[256], below[2048];
    for (DWORD i = 0; size = 256, !RegEnumKeyExW(key, i, child, &size, NULL, NULL, NULL, NULL); i++) {
        HKEY opened;
        if (RegOpenKeyExW(key, child, 0, KEY_READ, &opened))
            die("open", i);
        lstrcpyW(below, path);
        lstrcatW(below, L"\\");
        lstrcatW(below, child);
        dump(opened, below);
        RegCloseKey(opened);
    }
}

int main(int count, char **arguments)
{
    FILE *script = fopen("C:\\work\\script", "rb");
    size_t limit = 16 << 20;
    char *line = malloc(limit);
    if (!script || !(out = fopen("C:\\work\\dump", "wb")))
        die("open", GetLastError());
    while (fgets(line, limit, script)) {
        line[strcspn(line, "\n")] = 0;
        change(line);
    }
    for (int i = 1; i < count; i++) {
        const char *path = arguments[i];
        WCHAR *whole = wide(path);
        HKEY root = root_of(&path), key;
        if (!RegOpenKeyExW(root, wide(path), 0, KEY_READ, &key))
            dump(key, whole);
    }
    return fclose(out) ? 1 : 0;
}
