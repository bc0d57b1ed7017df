// Package cacert finds the certificate authorities that a host's administrator added to those that everybody has, and reads
// them strictly: from what looks like one of them, nothing but a certificate is ever taken.
//
// Layer: leaf. It imports none of ours.
package cacert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of what is taken.
const (
	MaxRoots = 64        // in all
	MaxTotal = 256 << 10 // bytes of all
	MaxDER   = 16 << 10  // bytes of one
	MaxFile  = 1 << 20   // bytes of a file

	maxEntries = 4096 // of all folders
)

// Sources are where to look. What is not there holds nothing.
type Sources struct {
	// Dirs hold only what the administrator put there.
	Dirs []string
	// Bundle is a file of certificates, of which those that lie below Known are nobody's addition. It is not looked at when it
	// has more than MaxRoots others: then it is somebody's idea of all the world's.
	Bundle string
	Known  string
}

// Host returns the places where this host's distribution has them, with the user's own bundle if getenv knows one.
func Host(getenv func(string) string) Sources {
	return Sources{
		Dirs:   []string{"/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors"},
		Bundle: getenv("SSL_CERT_FILE"),
		Known:  "/usr/share/ca-certificates",
	}
}

// Find returns the certificates (DER) of all sources, each once, in the order of the sources. What cannot be used is told to log.
func Find(s Sources, log *slog.Logger) [][]byte {
	set := &set{seen: map[[sha256.Size]byte]bool{}}
	left := maxEntries
	for _, dir := range s.Dirs {
		for _, file := range files(dir, &left) {
			roots, err := readFile(file)
			if err != nil {
				log.Warn("a certificate of the host is not passed on", "file", file, "error", err)
				continue
			}
			set.add(roots)
		}
	}
	if s.Bundle != "" {
		if err := set.addBundle(s); err != nil {
			log.Debug("the host's bundle of certificates is not passed on", "file", s.Bundle, "error", err)
		}
	}
	fit, total := 0, 0
	for _, der := range set.roots {
		if total += len(der); total > MaxTotal || fit == MaxRoots {
			log.Warn("only the first of the host's certificates are passed on", "there are", len(set.roots), "passed on", fit)
			break
		}
		fit++
	}
	return set.roots[:fit]
}

// set holds certificates, each once.
type set struct {
	seen  map[[sha256.Size]byte]bool
	roots [][]byte
}

func (s *set) add(roots [][]byte) {
	for _, der := range roots {
		if sum := sha256.Sum256(der); !s.seen[sum] {
			s.seen[sum] = true
			s.roots = append(s.roots, der)
		}
	}
}

func (s *set) addBundle(src Sources) error {
	all, err := readFile(src.Bundle)
	if err != nil {
		return err
	}
	known := &set{seen: map[[sha256.Size]byte]bool{}}
	left := maxEntries
	for _, file := range files(src.Known, &left) {
		if roots, err := readFile(file); err == nil {
			known.add(roots)
		}
	}
	var added [][]byte
	for _, der := range all {
		if sum := sha256.Sum256(der); !known.seen[sum] && !s.seen[sum] {
			added = append(added, der)
		}
	}
	if len(added) > MaxRoots {
		return fmt.Errorf("%d certificates in it are not the distribution's", len(added))
	}
	s.add(added)
	return nil
}

// files lists the certificates below dir, in the order of their names: as update-ca-certificates(8) does those named *.crt, and
// *.pem, which update-ca-trust(8) takes.
func files(dir string, left *int) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if *left--; *left < 0 {
			return fs.SkipAll
		}
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // what cannot be listed holds nothing
		}
		if ext := filepath.Ext(path); ext == ".crt" || ext == ".pem" {
			out = append(out, path)
		}
		return nil
	})
	return out
}

func readFile(path string) ([][]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not keep us
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Parse returns the certificates (DER) of a PEM file. The whole file is refused when anything else than certificates of
// authorities is in it, a private key above all; text between them is allowed.
func Parse(text []byte) ([][]byte, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		return nil, errors.New("there is a private key in it")
	}
	var out [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block in it is no CERTIFICATE but %.40q", block.Type)
		}
		if err := Check(block.Bytes); err != nil {
			return nil, err
		}
		out = append(out, block.Bytes)
	}
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, errors.New("a block in it is damaged")
	}
	if len(out) == 0 {
		return nil, errors.New("there is no certificate in PEM form in it")
	}
	return out, nil
}

// Check refuses what is no certificate of an authority.
func Check(der []byte) error {
	if len(der) > MaxDER {
		return fmt.Errorf("a certificate of %d bytes is larger than %d", len(der), MaxDER)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	// The first version knew no constraints: there, who signs himself is an authority.
	old := c.Version < 3 && bytes.Equal(c.RawSubject, c.RawIssuer)
	if !old && !(c.BasicConstraintsValid && c.IsCA) {
		return fmt.Errorf("the certificate of %.80q is not one of an authority", strings.ToValidUTF8(c.Subject.String(), "?"))
	}
	return nil
}

// PEM returns a certificate as text.
func PEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
