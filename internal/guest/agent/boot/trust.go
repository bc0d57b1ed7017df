package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// Where Debian has certificates. What lies in trustLocal is added by update-ca-certificates, whoever runs it.
const (
	trustLocal  = "usr/local/share/ca-certificates"
	trustDir    = "etc/ssl/certs"
	trustBundle = "etc/ssl/certs/ca-certificates.crt"
	trustPrefix = "smolvm-" // begins the names of those that are ours

	maxSameHash = 64

	pemBegin = "-----BEGIN CERTIFICATE-----\n"
)

// isHash reports whether h can begin a link's name.
func isHash(h string) bool {
	b, err := hex.DecodeString(h)
	return err == nil && len(b) == 4
}

// trustEnv is the environment that makes programs with a list of their own use the system's, for a system whose root folder
// is root and that got roots. A system that has no list keeps what its programs bring.
func trustEnv(root string, roots []*proto.Authority) map[string]string {
	if _, err := os.Stat(filepath.Join(root, trustBundle)); err != nil || len(roots) == 0 {
		return nil
	}
	const bundle = "/" + trustBundle
	return map[string]string{
		"SSL_CERT_FILE": bundle, "SSL_CERT_DIR": "/" + trustDir, "REQUESTS_CA_BUNDLE": bundle, "CURL_CA_BUNDLE": bundle,
		"PIP_CERT": bundle, "GIT_SSL_CAINFO": bundle, "NODE_EXTRA_CA_CERTS": bundle, "CARGO_HTTP_CAINFO": bundle,
		"AWS_CA_BUNDLE": bundle, "DENO_CERT": bundle,
	}
}

// trust makes the system whose root folder is root trust these authorities besides its own, and no others that it
// trusted on our word before. The result is that of update-ca-certificates, which takes seconds under emulation. What is as
// it should be is not written.
func trust(root string, roots []*proto.Authority) error {
	local := filepath.Join(root, trustLocal)
	want, hashes := map[string]string{}, map[string]string{} // text and subject's hash by name
	for _, a := range roots {
		if !strings.HasPrefix(a.GetPem(), pemBegin) || !isHash(a.GetSubjectHash()) {
			return fmt.Errorf("%.40q with the hash %.20q is no certificate", a.GetPem(), a.GetSubjectHash())
		}
		sum := sha256.Sum256([]byte(a.GetPem()))
		name := trustPrefix + hex.EncodeToString(sum[:8])
		want[name], hashes[name] = a.GetPem(), a.GetSubjectHash()
	}
	stale := map[string]string{}
	old, _ := filepath.Glob(filepath.Join(local, trustPrefix+"*.crt"))
	for _, path := range old {
		name := strings.TrimSuffix(filepath.Base(path), ".crt")
		if want[name] != "" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		stale[name] = string(text)
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for name, text := range want {
		if err := update(filepath.Join(local, name+".crt"), text, 0o644); err != nil {
			return err
		}
	}
	// Without the package ca-certificates there is no list. When it comes, it finds ours.
	bundle := filepath.Join(root, trustBundle)
	text, err := os.ReadFile(bundle)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := link(root, hashes, stale); err != nil {
		return err
	}
	return update(bundle, bundled(string(text), want, stale), 0o644)
}

// bundled is a bundle with what is wanted at its end, in the order of the names, and without what is stale.
func bundled(text string, want, stale map[string]string) string {
	for _, blocks := range []map[string]string{stale, want} {
		for _, block := range blocks {
			text = strings.Replace(text, block, "", 1)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += want[name]
	}
	return text
}

// link makes the names by which OpenSSL finds certificates in their folder: what is wanted comes with its hash, of what is
// stale there is the text.
func link(root string, want, stale map[string]string) error {
	dir := filepath.Join(root, trustDir)
	for _, name := range slices.Sorted(maps.Keys(stale)) {
		_ = os.Remove(filepath.Join(dir, name+".pem"))
		ders, err := cacert.Parse([]byte(stale[name]))
		if err != nil {
			continue // somebody in the guest has changed the file: what it was called before is not known
		}
		hash, err := cacert.Hash(ders[0])
		if err != nil {
			return err
		}
		if err := relink(dir, hash, name+".pem", false); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := point(filepath.Join(dir, name+".pem"), "/"+trustLocal+"/"+name+".crt"); err != nil {
			return err
		}
		if err := relink(dir, want[name], name+".pem", true); err != nil {
			return err
		}
	}
	return nil
}

// relink adds target to the links HASH.0, HASH.1 and so on, which must be without gaps, or takes it away.
func relink(dir, hash, target string, there bool) error {
	name := func(n int) string { return filepath.Join(dir, hash+"."+strconv.Itoa(n)) }
	var others []string
	had := 0
	for ; had < maxSameHash; had++ {
		to, err := os.Readlink(name(had))
		if err != nil {
			break
		}
		if to == target && there {
			return nil
		}
		if to != target {
			others = append(others, to)
		}
	}
	if there {
		others = append(others, target)
	}
	for i, to := range others {
		if err := point(name(i), to); err != nil {
			return err
		}
	}
	for i := len(others); i < had; i++ {
		if err := os.Remove(name(i)); err != nil {
			return err
		}
	}
	return nil
}

// point makes a symbolic link, or makes it lead elsewhere.
func point(path, to string) error {
	if now, err := os.Readlink(path); err == nil && now == to {
		return nil
	}
	tmp := path + ".smolvm-new"
	_ = os.Remove(tmp)
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// nssScript does for NSS, which browsers use, what trust does for everybody else: root's database and the system's get what is
// ours, and lose what is ours no more.
const nssScript = `
certs=/` + trustLocal + `
for db in "$HOME/.pki/nssdb" /etc/pki/nssdb; do
	if [ ! -e "$db/cert9.db" ]; then
		[ "$db" = "$HOME/.pki/nssdb" ] && [ -n "$(ls $certs/` + trustPrefix + `*.crt 2>/dev/null)" ] || continue
		mkdir -p -m 0700 "$db" && certutil -N --empty-password -d "sql:$db"
	fi
	for name in $(certutil -L -d "sql:$db" | sed -n 's/^\(` + trustPrefix + `[0-9a-f]*\) .*/\1/p'); do
		[ -e "$certs/$name.crt" ] || certutil -D -d "sql:$db" -n "$name"
	done
	for file in $certs/` + trustPrefix + `*.crt; do
		name=$(basename "$file" .crt)
		certutil -L -d "sql:$db" -n "$name" >/dev/null 2>&1 || certutil -A -d "sql:$db" -t C,, -n "$name" -i "$file"
	done
done`
