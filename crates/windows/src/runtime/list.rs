//! What the runtime is made of: packages, and which of their files.
//!
//! Chosen by measuring: with these, node, .NET, PostgreSQL, nginx and Go and Rust programs run;
//! what is left out has to do with screens, sound, printers, games and 16-bit programs.

use crate::debian::index::Wish;

/// Packages of the host's architecture.
pub const PACKAGES: [Wish; 10] = [
    Wish { names: &["libwine"], follow: false },
    Wish { names: &["wine64"], follow: false },
    Wish { names: &["libc6"], follow: true },
    Wish { names: &["libc-bin"], follow: false },
    Wish { names: &["libunwind8"], follow: true },
    // Wine opens it at run time for TLS and cryptography.
    Wish { names: &["libgnutls30t64", "libgnutls30"], follow: true },
    Wish { names: &["libz-mingw-w64"], follow: false },
    Wish { names: &["ca-certificates"], follow: false },
    Wish { names: &["base-files"], follow: false },
    Wish { names: &["libgcc-s1"], follow: true },
];

/// Packages for text that is really drawn.
pub const PACKAGES_FONTS: [Wish; 8] = [
    Wish { names: &["zlib1g"], follow: false },
    Wish { names: &["libbrotli1"], follow: false },
    Wish { names: &["libfreetype6"], follow: false },
    Wish { names: &["libpng16-16t64", "libpng16-16"], follow: false },
    Wish { names: &["libbz2-1.0"], follow: false },
    Wish { names: &["libfontconfig1"], follow: false },
    Wish { names: &["libexpat1"], follow: false },
    Wish { names: &["fonts-wine"], follow: false },
];

/// Packages of the 32-bit architecture: only Windows files are taken from it.
pub const PACKAGES_32: [Wish; 1] = [Wish { names: &["libwine"], follow: false }];

/// Libraries for Linux that are opened at run time, so that no file names them as needed.
pub const OPENED_AT_RUN_TIME: [&str; 4] = [
    "libgnutls.so.30",
    "libnss_files.so.2",
    "libnss_dns.so.2",
    // The C library ends threads with it, and the whole process where it is missing.
    "libgcc_s.so.1",
];

/// Linux halves of Wine's libraries that must be there.
pub const UNIX_REQUIRED: [&str; 8] =
    ["ntdll", "win32u", "ws2_32", "nsiproxy", "mountmgr", "bcrypt", "crypt32", "secur32"];

/// Linux halves that are taken where there are any.
pub const UNIX_OPTIONAL: [&str; 9] = [
    "avicap32", "dnsapi", "dwrite", "kerberos", "localspl", "msv1_0", "netapi32", "odbc32",
    "winspool",
];

/// Windows files that are left out: names, a star at the end stands for anything.
pub const WINDOWS_EXCLUDED: &[&str] = &[
    // Graphics.
    "d2d1*",
    "d3d*",
    "dcomp*",
    "ddraw*",
    "dx8vb*",
    "dxdiag*",
    "dxva2*",
    "glu32*",
    "graphicscapture*",
    "mscms*",
    "icmui*",
    "opencl*",
    "opengl32*",
    "photometadata*",
    "vulkan-1*",
    "winevulkan*",
    "wmphoto*",
    "light.msstyles",
    "magnification*",
    "wiaservc*",
    "sti.dll",
    "twain*",
    "gphoto2*",
    "sane*",
    "uiautomationcore*",
    // Sound, films, speech.
    "amstream*",
    "audioses*",
    "colorcnv*",
    "devenum*",
    "dmband*",
    "dmcompos*",
    "dmime*",
    "dmloader*",
    "dmscript*",
    "dmstyle*",
    "dmsynth*",
    "dmusic*",
    "dsdmo*",
    "dsound*",
    "dswave*",
    "evr*",
    "i420*",
    "iccvid*",
    "imaadp32*",
    "ir50_32*",
    "iyuv*",
    "ksproxy*",
    "ksuser*",
    "l3codec*",
    "mciavi*",
    "mcicda*",
    "mciqtz*",
    "mciseq*",
    "mciwave*",
    "mf.dll",
    "mfasf*",
    "mfh264*",
    "mfaac*",
    "mfmediaengine*",
    "mfmp4*",
    "mfplat*",
    "mfplay*",
    "mfreadwrite*",
    "mfsrcsnk*",
    "mmdevapi*",
    "mp3dmod*",
    "msadp32*",
    "msauddecmft*",
    "msvproc*",
    "mf3216*",
    "mferror*",
    "icinfo*",
    "msdmo*",
    "msg711*",
    "msgsm32*",
    "msmpeg*",
    "msrle32*",
    "msttsengine*",
    "msvidc32*",
    "openal*",
    "qasf*",
    "qcap*",
    "qdvd*",
    "qedit*",
    "quartz*",
    "resampledmo*",
    "rtworkq*",
    "sapi*",
    "speech*",
    "vidreszr*",
    "windows.media*",
    "winedmo*",
    "winegstreamer*",
    "winealsa*",
    "winepulse*",
    "wineoss*",
    "winecoreaudio*",
    "wmadmod*",
    "wmasf*",
    "wmp.dll",
    "wmvcore*",
    "wmvdecod*",
    "x3daudio*",
    "xactengine*",
    "xapofx*",
    "xaudio*",
    // Games and game controllers.
    "dinput*",
    "dplay*",
    "dpnaddr*",
    "dpnet*",
    "dpnhpast*",
    "dpnhupnp*",
    "dpnlobby*",
    "dpnsvr*",
    "dpvoice*",
    "dpwsockx*",
    "gameux*",
    "joy.cpl",
    "windows.gaming*",
    "windows.perception*",
    "xinput*",
    "winexinput*",
    // Windows on a screen, browsers, control panels.
    "appwiz*",
    "clock.exe",
    "cryptui*",
    "hh.exe",
    "hhctrl*",
    "ieframe*",
    "ieproxy*",
    "iexplore.exe",
    "inetcpl*",
    "irprop*",
    "mshtml*",
    "notepad.exe",
    "oleview.exe",
    "progman.exe",
    "taskmgr.exe",
    "view.exe",
    "cards.dll",
    "msvcrtd.dll",
    "dhtmled*",
    "dxtrans*",
    "winecfg.exe",
    "winedbg.exe",
    "winefile.exe",
    "winemac*",
    "winemine.exe",
    "winewayland*",
    "winex11*",
    "winhlp32*",
    "wordpad.exe",
    "write.exe",
    // Devices.
    "capi2032*",
    "ctapi32*",
    "hidclass*",
    "mouhid*",
    "winebth*",
    "winebus*",
    "winehid*",
    "wineps*",
    "wineusb*",
    "wpcap*",
    "prntvpt*",
    "xpsprint*",
    "xpssvcs*",
    "opcservices*",
    "dialer*",
    // 16-bit programs.
    "*.dll16",
    "*.drv16",
    "*.exe16",
    "*.mod16",
    "*.vxd",
    "winevdm*",
    "winoldap*",
    "krnl386*",
];

/// 32-bit Windows files of the runtime itself; everything that these import comes with them.
/// All others are in the base images alone: Wine takes its own files from the drive C: when the
/// runtime does not have them. These are here for images whose drive has Microsoft's files.
pub const WINDOWS_32_CORE: [&str; 43] = [
    "advapi32.dll",
    "bcrypt.dll",
    "cmd.exe",
    "comctl32.dll",
    "conhost.exe",
    "crypt32.dll",
    "dbghelp.dll",
    "dnsapi.dll",
    "gdi32.dll",
    "imm32.dll",
    "iphlpapi.dll",
    "kernel32.dll",
    "kernelbase.dll",
    "msvcp140.dll",
    "msvcr100.dll",
    "msvcr120.dll",
    "msvcrt.dll",
    "mswsock.dll",
    "ncrypt.dll",
    "netapi32.dll",
    "ntdll.dll",
    "ole32.dll",
    "oleaut32.dll",
    "psapi.dll",
    "reg.exe",
    "regsvr32.exe",
    "rsaenh.dll",
    "rundll32.exe",
    "schannel.dll",
    "secur32.dll",
    "setupapi.dll",
    "shell32.dll",
    "shlwapi.dll",
    "start.exe",
    "ucrtbase.dll",
    "user32.dll",
    "userenv.dll",
    "vcruntime140.dll",
    "version.dll",
    "winhttp.dll",
    "wininet.dll",
    "winmm.dll",
    "ws2_32.dll",
];

/// Functions of FreeType that Wine asks for. The runtime has a library that exports them and
/// refuses to begin: text cannot be drawn, which programs without a window do not do, and no
/// process spends its start on looking for fonts.
pub const FREETYPE: [&str; 46] = [
    "FT_Activate_Size",
    "FT_Done_Face",
    "FT_Done_FreeType",
    "FT_Done_Glyph",
    "FT_Done_Size",
    "FT_Get_Char_Index",
    "FT_Get_First_Char",
    "FT_Get_Glyph",
    "FT_Get_Kerning",
    "FT_Get_Next_Char",
    "FT_Get_Sfnt_Name",
    "FT_Get_Sfnt_Name_Count",
    "FT_Get_Sfnt_Table",
    "FT_Get_TrueType_Engine_Type",
    "FT_Get_WinFNT_Header",
    "FT_Glyph_Copy",
    "FT_Glyph_Get_CBox",
    "FT_Glyph_Transform",
    "FT_Init_FreeType",
    "FT_Library_SetLcdFilter",
    "FT_Library_Version",
    "FT_Load_Glyph",
    "FT_Load_Sfnt_Table",
    "FT_Matrix_Multiply",
    "FT_MulDiv",
    "FT_MulFix",
    "FT_New_Face",
    "FT_New_Memory_Face",
    "FT_New_Size",
    "FT_Outline_Copy",
    "FT_Outline_Decompose",
    "FT_Outline_Done",
    "FT_Outline_Embolden",
    "FT_Outline_EmboldenXY",
    "FT_Outline_Get_Bitmap",
    "FT_Outline_Get_CBox",
    "FT_Outline_New",
    "FT_Outline_Transform",
    "FT_Outline_Translate",
    "FT_Property_Set",
    "FT_Render_Glyph",
    "FT_Set_Charmap",
    "FT_Set_Pixel_Sizes",
    "FT_Vector_Length",
    "FT_Vector_Transform",
    "FT_Vector_Unit",
];

/// Whether a Windows file is left out.
pub fn excluded(name: &str) -> bool {
    WINDOWS_EXCLUDED.iter().any(|pattern| {
        if let Some(end) = pattern.strip_prefix('*') {
            name.ends_with(end)
        } else if let Some(start) = pattern.strip_suffix('*') {
            name.starts_with(start)
        } else {
            name == *pattern
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (name, expected) in [
            ("d3d11.dll", true),
            ("krnl386.exe16", true),
            ("notepad.exe", true),
            ("kernel32.dll", false),
            ("dmband.dll", true),
            ("apisetschema.dll", false),
        ] {
            assert_eq!(excluded(name), expected, "{name}");
        }
    }

    #[test]
    fn the_core_is_not_excluded() {
        for name in WINDOWS_32_CORE {
            assert!(!excluded(name), "{name}");
        }
    }
}
