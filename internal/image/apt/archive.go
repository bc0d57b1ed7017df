// Package apt reads Debian's archive with the host's apt, but with nothing of the host's configuration except its
// proxies: own sources, own lists, and Debian's keys as this program carries them.
//
// Layer: below image/kernel and image/debian. It may import errdefs, api.
package apt

import (
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Suite is the Debian release that images and kernels are made from.
const Suite = "trixie"

// Debian's own hosts.
const (
	defaultMain     = "http://deb.debian.org/debian"
	defaultSecurity = "http://deb.debian.org/debian-security"
)

// GuestKeyring is where a Debian system keeps the archive's keys.
const GuestKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

//go:embed keys/*.gpg
var keyFiles embed.FS

// Keyring returns the public keys that Debian 13's archive is signed with, in OpenPGP's binary form. They are the
// files of the package debian-archive-keyring.
func Keyring() []byte {
	var all []byte
	names, _ := fs.Glob(keyFiles, "keys/*.gpg") // the pattern is a constant
	for _, name := range names {
		b, err := keyFiles.ReadFile(name)
		if err != nil {
			panic(err) // an embedded file that was just listed
		}
		all = append(all, b...)
	}
	return all
}

// Archive is where Debian's packages come from.
type Archive struct {
	Main     string // URL of the suites trixie and trixie-updates
	Security string // URL of trixie-security
}

// NewArchive reads the value of SMOLVM_DEBIAN_MIRROR: "" for Debian's own hosts, or a mirror's URL, beside whose
// …/debian lies …/debian-security, or two URLs with a space between them, the second for the security suite.
func NewArchive(mirror string) (Archive, error) {
	urls := strings.Fields(mirror)
	switch len(urls) {
	case 0:
		return Archive{Main: defaultMain, Security: defaultSecurity}, nil
	case 1:
		urls = append(urls, strings.TrimSuffix(urls[0], "/")+"-security")
	case 2:
	default:
		return Archive{}, errdefs.Invalid.Errorf("SMOLVM_DEBIAN_MIRROR has %d URLs, one or two are meant", len(urls))
	}
	for i, u := range urls {
		if err := checkURL(u); err != nil {
			return Archive{}, errdefs.Invalid.Errorf("SMOLVM_DEBIAN_MIRROR: %q: %w", u, err).
				WithRemedy("unset SMOLVM_DEBIAN_MIRROR")
		}
		urls[i] = strings.TrimSuffix(u, "/")
	}
	return Archive{Main: urls[0], Security: urls[1]}, nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if strings.ContainsAny(s, "\"'\\") || strings.ContainsAny(u.Path, "[]") { // they mean something in apt's files
		return fmt.Errorf("a character that apt does not take")
	}
	switch {
	case u.Scheme == "file" && u.Host == "" && u.Path != "":
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
	default:
		return fmt.Errorf("not an http, https or file URL")
	}
	return nil
}

// String tells the archive as `image inspect` shows it.
func (a Archive) String() string {
	return fmt.Sprintf("%s %s, %s-updates; %s %s-security", a.Main, Suite, Suite, a.Security, Suite)
}

// Sources returns the archive as apt's deb822 source list, with keyring as its keys.
func (a Archive) Sources(keyring string) string {
	return fmt.Sprintf(`Types: deb
URIs: %s
Suites: %s %s-updates
Components: main
Signed-By: %s

Types: deb
URIs: %s
Suites: %s-security
Components: main
Signed-By: %s
`, a.Main, Suite, Suite, keyring, a.Security, Suite, keyring)
}

// Lines returns the archive in apt's one-line form, for tools that take no other, with keyring as its keys.
func (a Archive) Lines(keyring string) []string {
	return []string{
		fmt.Sprintf("deb [signed-by=%s] %s %s main", keyring, a.Main, Suite),
		fmt.Sprintf("deb [signed-by=%s] %s %s-updates main", keyring, a.Main, Suite),
		fmt.Sprintf("deb [signed-by=%s] %s %s-security main", keyring, a.Security, Suite),
	}
}

// ForGuest is the archive that a guest's own apt uses: the same, unless that is only reachable on this host.
func (a Archive) ForGuest() Archive {
	if local(a.Main) || local(a.Security) {
		return Archive{Main: defaultMain, Security: defaultSecurity}
	}
	return a
}

func local(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "file" || u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}
