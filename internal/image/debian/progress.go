package debian

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/image/apt"
)

// progress reads what mmdebstrap, apt and dpkg print, and tells how far they are. Three steps are counted per package:
// downloaded, unpacked, set up. It is an io.Writer.
type progress struct {
	report api.ProgressFunc
	told   *apt.Tail
	line   []byte

	done, expected int64 // steps; packages
	announced      int64 // packages that apt said it would install
	detail         string
}

// closure is how many packages one of ours brings, about: 44 named ones make 220.
const closure = 5

func newProgress(report api.ProgressFunc, named int) *progress {
	return &progress{report: report, told: &apt.Tail{Max: 64 << 10}, expected: int64(named) * closure}
}

// Write implements io.Writer and never fails.
func (p *progress) Write(b []byte) (int, error) {
	_, _ = p.told.Write(b) // never fails
	for rest := b; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			if len(p.line) < 4096 {
				p.line = append(p.line, rest...)
			}
			return len(b), nil
		}
		p.read(string(p.line) + string(rest[:i]))
		p.line, rest = p.line[:0], rest[i+1:]
	}
}

var (
	fetchLine   = regexp.MustCompile(`^Get:\d+ \S+ \S+ \S+ (\S+) \S+ (\S+) \[`)
	unpackLine  = regexp.MustCompile(`^Unpacking ([a-z0-9+.-]+)`)
	setupLine   = regexp.MustCompile(`^Setting up ([a-z0-9+.-]+)`)
	installLine = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed`)
)

// read looks at one line.
func (p *progress) read(line string) {
	switch {
	case strings.HasPrefix(line, "I: running apt-get update"):
		p.detail = "read Debian's package lists"
	case strings.HasPrefix(line, "I: creating tarball"):
		p.done, p.detail = max(p.done, p.expected*3), "make the image"
	case fetchLine.MatchString(line):
		p.done, p.detail = p.done+1, "download "+fetchLine.FindStringSubmatch(line)[1]
	case unpackLine.MatchString(line):
		p.done, p.detail = p.done+1, "unpack "+unpackLine.FindStringSubmatch(line)[1]
	case setupLine.MatchString(line):
		p.done, p.detail = p.done+1, "set up "+setupLine.FindStringSubmatch(line)[1]
	case installLine.MatchString(line):
		n, err := strconv.ParseInt(installLine.FindStringSubmatch(line)[1], 10, 32)
		if err != nil {
			return
		}
		p.announced += n
		p.expected = max(p.expected, p.announced)
		return
	default:
		return
	}
	if p.report != nil {
		p.report(api.Progress{Stage: "packages", Detail: p.detail, Done: min(p.done, p.expected*3), Total: p.expected * 3})
	}
}
