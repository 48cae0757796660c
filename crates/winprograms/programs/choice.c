/* choice: asks for one key of several; the exit code is its place. */
#include "rt.h"

static void usage(void)
{
    print_text(L"CHOICE [/C choices] [/N] [/CS] [/T timeout /D choice] [/M text]\n\n"
               L"    /C choices    The keys to choose from; YN without it.\n"
               L"    /N            Does not show them.\n"
               L"    /CS           Upper and lower case differ.\n"
               L"    /T timeout    Seconds after which the default is taken, 0 to 9999.\n"
               L"    /D choice     The default; goes with /T.\n"
               L"    /M text       Is shown before the keys.\n\n"
               L"The exit code is the place of the key, 0 after Ctrl-C, 255 after an error.\n");
}

static int invalid(const WCHAR *what)
{
    complain(L"ERROR: %s\nType \"CHOICE /?\" for usage.\n", what);
    return 255;
}

static int place(const WCHAR *choices, WCHAR c, BOOL exact)
{
    for (int i = 0; choices[i]; i++)
        if (choices[i] == c || (!exact && lower(choices[i]) == lower(c)))
            return i + 1;
    return 0;
}

/* The next key; 0 at the end of time or of the input. */
static WCHAR next_key(HANDLE input, BOOL console, ULONGLONG end)
{
    for (;;) {
        if (!console) {
            char byte;
            DWORD size;
            return ReadFile(input, &byte, 1, &size, NULL) && size ? (unsigned char)byte : 0;
        }
        ULONGLONG now = GetTickCount64();
        if (end && now >= end)
            return 0;
        if (WaitForSingleObject(input, end ? (DWORD)(end - now) : INFINITE) != WAIT_OBJECT_0)
            return 0;
        INPUT_RECORD record;
        DWORD count;
        if (!ReadConsoleInputW(input, &record, 1, &count))
            return 0;
        if (record.EventType == KEY_EVENT && record.Event.KeyEvent.bKeyDown
            && record.Event.KeyEvent.uChar.UnicodeChar)
            return record.Event.KeyEvent.uChar.UnicodeChar;
    }
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *choices = L"YN", *text = NULL, *fallback = NULL, *value;
    BOOL hidden = FALSE, exact = FALSE, timed = FALSE;
    ULONGLONG seconds = 0;
    for (int i = 1; i < argc; i++) {
        const WCHAR *a = argv[i];
        if (is_option(a, L"?")) {
            usage();
            return 0;
        } else if (is_option(a, L"n")) {
            hidden = TRUE;
        } else if (is_option(a, L"cs")) {
            exact = TRUE;
        } else if ((value = option_value(a, L"c")) || (is_option(a, L"c") && (value = argv[++i]))) {
            choices = value;
        } else if ((value = option_value(a, L"m")) || (is_option(a, L"m") && (value = argv[++i]))) {
            text = value;
        } else if ((value = option_value(a, L"d")) || (is_option(a, L"d") && (value = argv[++i]))) {
            fallback = value;
        } else if ((value = option_value(a, L"t")) || (is_option(a, L"t") && (value = argv[++i]))) {
            timed = TRUE;
            if (!parse_number(value, &seconds) || seconds > 9999)
                return invalid(L"Invalid syntax. Valid range for /T is (0 to 9999).");
        } else {
            return invalid(L"Invalid syntax.");
        }
    }
    if (!*choices)
        return invalid(L"Invalid choice list.");
    if (timed != (fallback != NULL))
        return invalid(L"Invalid syntax. /T and /D have to be given together.");
    if (fallback && (!*fallback || fallback[1] || !place(choices, *fallback, exact)))
        return invalid(L"Invalid syntax. The default choice is not one of the choices.");

    if (text)
        print(L"%s ", text);
    if (!hidden) {
        print_text(L"[");
        for (const WCHAR *c = choices; *c; c++)
            print(c == choices ? L"%c" : L",%c", *c);
        print_text(L"]?");
    }
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);
    DWORD mode;
    BOOL console = GetConsoleMode(input, &mode);
    if (console)
        SetConsoleMode(input, mode & ~(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT));
    ULONGLONG end = timed ? GetTickCount64() + seconds * 1000 + 1 : 0;
    int result = 0;
    while (!result) {
        WCHAR c = next_key(input, console, end);
        if (!c) {
            if (timed)
                c = *fallback;
            else if (!console)
                break;
        }
        result = place(choices, c, exact);
        if (result)
            print(L"%c\n", choices[result - 1]);
    }
    if (console)
        SetConsoleMode(input, mode);
    if (!result)
        return invalid(L"The file is either empty or does not contain the valid choices.");
    return result;
}
