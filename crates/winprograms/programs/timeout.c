/* timeout /T seconds [/NOBREAK]: waits for a time or a key. */
#include "rt.h"

static void usage(void)
{
    print_text(L"TIMEOUT [/T] timeout [/NOBREAK]\n\n"
               L"    /T timeout    Seconds to wait, -1 to 99999; -1 waits for a key.\n"
               L"    /NOBREAK      Ignores key presses; only Ctrl-C ends the wait.\n");
}

static BOOL key_pressed(HANDLE input)
{
    INPUT_RECORD record;
    DWORD count;
    BOOL pressed = FALSE;
    while (GetNumberOfConsoleInputEvents(input, &count) && count
           && ReadConsoleInputW(input, &record, 1, &count))
        pressed |= record.EventType == KEY_EVENT && record.Event.KeyEvent.bKeyDown
            && record.Event.KeyEvent.uChar.UnicodeChar;
    return pressed;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *text = NULL;
    BOOL nobreak = FALSE;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            usage();
            return 0;
        } else if (is_option(argv[i], L"nobreak")) {
            nobreak = TRUE;
        } else if (is_option(argv[i], L"t") && i + 1 < argc && !text) {
            text = argv[++i];
        } else if (!text) {
            text = argv[i];
        } else {
            return failed(L"Invalid syntax. Type \"TIMEOUT /?\" for usage.");
        }
    }
    ULONGLONG seconds = 0;
    BOOL forever = text && !wcscmp(text, L"-1");
    if (!text || (!forever && (!parse_number(text, &seconds) || seconds > 99999)))
        return failed(L"Invalid value for timeout (/T) specified. Valid range is -1 to 99999 seconds.");
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);
    DWORD mode;
    if (!GetConsoleMode(input, &mode)) {
        complain(L"ERROR: Input redirection is not supported, exiting the process immediately.\n");
        return 1;
    }
    DWORD out;
    BOOL terminal = GetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), &out);
    const WCHAR *advice = nobreak ? L"press CTRL+C to quit" : L"press a key to continue";
    if (forever)
        print(L"\nPress %s to continue ...\n", nobreak ? L"CTRL+C" : L"any key");
    ULONGLONG end = GetTickCount64() + seconds * 1000, shown = ~0ull;
    for (;;) {
        ULONGLONG now = GetTickCount64();
        if (!forever) {
            ULONGLONG left = end > now ? (end - now + 999) / 1000 : 0;
            if (left != shown && (terminal || shown == ~0ull))
                print(L"%s Waiting for %I64u seconds, %s ...", terminal ? L"\r" : L"\n", left, advice);
            shown = left;
            if (!left)
                break;
        }
        DWORD wait = forever ? INFINITE : min((DWORD)(end - now), 1000 - (DWORD)((now - end) % 1000));
        if (nobreak)
            Sleep(wait);
        else if (WaitForSingleObject(input, wait) == WAIT_OBJECT_0 && key_pressed(input))
            break;
    }
    print_text(L"\n");
    return 0;
}
