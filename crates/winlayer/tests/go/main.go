// Writes layer tars by the rules that Microsoft's exporter and BuildKit follow, with the
// library that both use. The program shares nothing with the crate that reads them.
//
// Usage: go run main.go DIRECTORY
package main

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	attrReadonly  = 0x1
	attrHidden    = 0x2
	attrSystem    = 0x4
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrReparse   = 0x400

	typeDirectory = 0o040000
	typeRegular   = 0o100000
	typeLink      = 0o120000
)

// What BuildKit gives files.
const fileDescriptor = "AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA=="

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A FILETIME as Go has it: whole units of 100 ns.
func ticks(seconds int64, hundredNanos int64) time.Time {
	return time.Unix(seconds, hundredNanos*100)
}

func paxTime(t time.Time) string {
	seconds, nanos := t.Unix(), t.Nanosecond()
	if nanos == 0 {
		return strconv.FormatInt(seconds, 10)
	}
	sign := ""
	if seconds < 0 {
		sign, seconds, nanos = "-", -(seconds + 1), 1000000000-nanos
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, seconds, nanos), "0")
}

type layer struct {
	out *tar.Writer
	now time.Time
}

func (l *layer) header(name string, attributes uint32) *tar.Header {
	header := &tar.Header{
		Format:     tar.FormatPAX,
		Name:       name,
		Typeflag:   tar.TypeReg,
		ModTime:    l.now,
		ChangeTime: l.now.Add(time.Second + 100),
		AccessTime: l.now.Add(time.Hour),
		PAXRecords: map[string]string{
			"MSWINDOWS.fileattr":      strconv.FormatUint(uint64(attributes), 10),
			"LIBARCHIVE.creationtime": paxTime(l.now.Add(-time.Hour)),
		},
	}
	if attributes&attrDirectory != 0 {
		header.Typeflag = tar.TypeDir
		header.Mode |= typeDirectory
	}
	return header
}

func (l *layer) secure(header *tar.Header) *tar.Header {
	header.PAXRecords["MSWINDOWS.rawsd"] = fileDescriptor
	return header
}

func (l *layer) write(header *tar.Header, data string) {
	header.Size = int64(len(data))
	if len(data) > 0 {
		header.Mode |= typeRegular
	}
	check(l.out.WriteHeader(header))
	_, err := io.WriteString(l.out, data)
	check(err)
}

func (l *layer) directory(name string) { l.write(l.secure(l.header(name, attrDirectory)), "") }

func (l *layer) file(name string, attributes uint32, data string) *tar.Header {
	header := l.secure(l.header(name, attributes))
	l.write(header, data)
	return header
}

func (l *layer) stream(owner *tar.Header, name, data string) {
	l.write(&tar.Header{
		Format:     owner.Format,
		Name:       owner.Name + ":" + name,
		Mode:       owner.Mode,
		Typeflag:   tar.TypeReg,
		ModTime:    owner.ModTime,
		AccessTime: owner.AccessTime,
		ChangeTime: owner.ChangeTime,
	}, data)
}

func (l *layer) link(name, target string, attributes uint32, junction bool) {
	header := l.secure(l.header(name, attributes|attrReparse))
	header.Mode |= typeLink
	header.Typeflag = tar.TypeSymlink
	header.Linkname = target
	if junction {
		header.PAXRecords["MSWINDOWS.mountpoint"] = "1"
	}
	l.write(header, "")
}

func (l *layer) hardLink(name, target string) {
	header := l.header(name, attrArchive)
	header.Mode = 0644
	header.Typeflag = tar.TypeLink
	header.Linkname = target
	l.write(header, "")
}

func (l *layer) whiteout(directory, name string) {
	check(l.out.WriteHeader(&tar.Header{Name: directory + "/.wh." + name}))
}

// A layer as the exporter walks it: sorted, parents once, no slashes at the end.
func exported(l *layer) {
	long := strings.Repeat("d", 40)
	l.directory("Files")
	l.whiteout("Files", "removed.txt")
	l.directory("Files/Program Files")
	owner := l.file("Files/Program Files/app.exe", attrArchive, strings.Repeat("MZ\x00\x90", 1000))
	l.stream(owner, "Zone.Identifier", "[ZoneTransfer]\r\nZoneId=3\r\n")
	l.stream(owner, "empty", "")
	l.hardLink("Files/Program Files/again.exe", "Files/Program Files/app.exe")
	l.file("Files/Program Files/empty.txt", attrArchive, "")
	l.directory("Files/Program Files/" + long)
	l.directory("Files/Program Files/" + long + "/" + long)
	l.file("Files/Program Files/"+long+"/"+long+"/"+long+".txt", attrArchive, "deep")
	l.whiteout("Files/Program Files/"+long+"/"+long, long+"-removed")
	l.directory("Files/Users")
	l.link("Files/Users/All Users", `C:\ProgramData`, attrDirectory|attrSystem|attrHidden, true)
	l.link("Files/Users/relative", `..\Program Files\app.exe`, 0, false)
	l.link("Files/Users/directory", `\Windows`, attrDirectory, false)
	l.link("Files/Users/far", `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`, attrDirectory, true)
	l.file("Files/Users/Grüße 日本語.txt", attrArchive|attrHidden, "unicode")
	l.whiteout("Files/Users", "gelöscht")
	extended := l.secure(l.header("Files/Users/with-ea.txt", attrReadonly))
	extended.PAXRecords["MSWINDOWS.xattr.$KERNEL.PURGE.ESBCACHE"] = base64.StdEncoding.EncodeToString([]byte{1, 2, 3, 4})
	l.write(extended, "extended")
	old := l.now
	l.now = ticks(-11644473600+86400, 1)
	l.file("Files/ancient.txt", attrArchive, "1601")
	l.now = ticks(9000000000, 7)
	l.file("Files/future.txt", attrArchive, "2255")
	l.now = time.Unix(1700000000, 0)
	l.file("Files/whole.txt", attrArchive, "whole seconds")
	l.now = old
	l.directory("Hives")
	for _, name := range []string{"DefaultUser", "Sam", "Security", "Software", "System"} {
		l.file("Hives/"+name+"_Delta", attrArchive, "regf of "+name)
	}
	check(l.out.Close())
}

// A base layer with a utility VM.
func base(l *layer) {
	for _, name := range []string{"Files", "Files/Windows", "Files/Windows/System32", "Files/Windows/System32/config"} {
		l.directory(name)
	}
	for _, name := range []string{"DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"} {
		l.file("Files/Windows/System32/config/"+name, attrArchive, "regf")
	}
	l.directory("UtilityVM")
	l.directory("UtilityVM/Files")
	l.directory("UtilityVM/Files/EFI")
	l.file("UtilityVM/Files/EFI/BCD", attrArchive, "bcd")
	l.hardLink("UtilityVM/Files/EFI/BCD2", "UtilityVM/Files/EFI/BCD")
	check(l.out.Close())
}

func builtHeader(header *tar.Header) *tar.Header {
	if header.PAXRecords == nil {
		header.PAXRecords = map[string]string{}
	}
	switch header.Typeflag {
	case tar.TypeDir:
		header.Mode |= 1 << 14
		header.PAXRecords["MSWINDOWS.fileattr"] = "16"
	case tar.TypeReg:
		header.Mode |= 1 << 15
		header.PAXRecords["MSWINDOWS.fileattr"] = "32"
	}
	if !header.ModTime.IsZero() {
		// Without leading zeros of the fraction: a defect that layers are out there with.
		header.PAXRecords["LIBARCHIVE.creationtime"] =
			fmt.Sprintf("%d.%d", header.ModTime.Unix(), header.ModTime.Nanosecond())
	}
	header.Format = tar.FormatPAX
	return header
}

// A layer as BuildKit makes it of a Linux tree.
func built(l *layer) {
	for _, name := range []string{"Hives", "Files"} {
		header := builtHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, ModTime: l.now})
		check(l.out.WriteHeader(header))
	}
	entry := func(header *tar.Header, data string) {
		header.Name = "Files/" + header.Name
		if header.Linkname != "" {
			header.Linkname = "Files/" + header.Linkname
		}
		header.Size = int64(len(data))
		builtHeader(header)
		if header.Typeflag != tar.TypeSymlink && header.Typeflag != tar.TypeLink {
			header.PAXRecords["MSWINDOWS.rawsd"] = fileDescriptor
		}
		check(l.out.WriteHeader(header))
		_, err := io.WriteString(l.out, data)
		check(err)
	}
	nanos := time.Unix(1700000000, 1500000)
	entry(&tar.Header{Name: "app/", Typeflag: tar.TypeDir, Mode: 0755, ModTime: nanos}, "")
	entry(&tar.Header{Name: "app/main.js", Typeflag: tar.TypeReg, Mode: 0644, Uid: 1000, Gid: 1000, Uname: "user", Gname: "users", ModTime: nanos}, "x")
	entry(&tar.Header{Name: "app/other.js", Typeflag: tar.TypeLink, Linkname: "app/main.js", Mode: 0644, ModTime: nanos}, "")
	entry(&tar.Header{Name: "app/link.js", Typeflag: tar.TypeSymlink, Linkname: "main.js", Mode: 0777, ModTime: nanos}, "")
	entry(&tar.Header{Name: "app/.wh.gone", Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}, "")
	entry(&tar.Header{Name: "windows/", Typeflag: tar.TypeDir, Mode: 0755, ModTime: nanos}, "")
	entry(&tar.Header{
		Name: "windows/xattr", Typeflag: tar.TypeReg, Mode: 0644, ModTime: nanos,
		PAXRecords: map[string]string{"SCHILY.xattr.user.test": "a\x00b", "mtime": paxTime(nanos)},
	}, "y")
	check(l.out.Close())
}

func main() {
	for name, make := range map[string]func(*layer){"exported": exported, "base": base, "built": built} {
		file, err := os.Create(filepath.Join(os.Args[1], name+".tar"))
		check(err)
		make(&layer{out: tar.NewWriter(file), now: ticks(1700000000, 1234567)})
		check(file.Close())
	}
}
