/* powershell: Wine's does nothing and ends with 0, which hides that a script did not run. */
#include "rt.h"

int program(int argc, WCHAR **argv)
{
    (void)argc;
    (void)argv;
    complain(L"powershell: PowerShell is not in this image, and nothing was run: it needs the .NET "
             L"Framework, which Silo's base images do not have. Use cmd, or put a PowerShell of its own "
             L"(pwsh) into the image.\n");
    return 1;
}
