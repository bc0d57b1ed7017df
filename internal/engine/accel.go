package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/errdefs"
)

// Verdict says whether an accelerator runs our guests on this host. A device that exists can still be useless, so only a
// kernel of ours that reached the agent counts.
type Verdict struct {
	Usable   bool      `json:"usable"`
	Evidence string    `json:"evidence"` // "hello after 1.2 s", "no hello within 10 s"
	Time     time.Time `json:"time"`
}

// Trial names what a verdict is about. It holds for one boot of the host, one build of the engine, one kernel and one user.
type Trial struct {
	Engine string `json:"engine"`
	Build  string `json:"build"` // Caps.Build
	Accel  string `json:"accel"`
	Kernel string `json:"kernel"` // its digest
	UID    int    `json:"uid"`
}

// Verdicts is the file that keeps them.
type Verdicts struct {
	path   string
	bootID string
}

// maxVerdicts bounds the file: the oldest go first.
const maxVerdicts = 64

type verdictFile struct {
	BootID  string         `json:"boot_id"`
	Entries []verdictEntry `json:"verdicts"`
}

type verdictEntry struct {
	Trial
	Verdict
}

// CacheDir is where what was found out about this host is kept: ${XDG_CACHE_HOME:-~/.cache}/smolvm, or "" where the user
// has no home.
func CacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "smolvm")
}

// NewVerdicts opens the verdicts kept in dir (see CacheDir). With dir "" nothing is kept.
func NewVerdicts(dir string) *Verdicts {
	v := &Verdicts{}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && dir != "" {
		v.path, v.bootID = filepath.Join(dir, "accel.json"), strings.TrimSpace(string(b))
	}
	return v
}

// Lookup returns the verdict on t, if there is one. A file that cannot be read counts as empty.
func (v *Verdicts) Lookup(t Trial) (Verdict, bool) {
	f, _ := v.load()
	for _, e := range f.Entries {
		if e.Trial == t {
			return e.Verdict, true
		}
	}
	return Verdict{}, false
}

// Record keeps a verdict on t in place of a former one. Two that record at once may lose one of the two verdicts; it is
// then found out again.
func (v *Verdicts) Record(t Trial, verdict Verdict) error {
	if v.path == "" {
		return nil
	}
	f, _ := v.load()
	entries := []verdictEntry{}
	for _, e := range f.Entries {
		if e.Trial != t {
			entries = append(entries, e)
		}
	}
	entries = append(entries, verdictEntry{t, verdict})
	f.BootID, f.Entries = v.bootID, entries[max(0, len(entries)-maxVerdicts):]
	b, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(v.path), 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(v.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return errdefs.Host.Errorf("keep the verdict on %s: %w", t.Accel, err)
	}
	return nil
}

// load reads the file. What was found out before the host's last start is not in it.
func (v *Verdicts) load() (verdictFile, error) {
	var f verdictFile
	if v.path == "" {
		return f, nil
	}
	r, err := os.Open(v.path)
	if err != nil {
		return f, err
	}
	defer func() { _ = r.Close() }()
	if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&f); err != nil {
		return verdictFile{}, fmt.Errorf("%s: %w", v.path, err)
	}
	if f.BootID != v.bootID {
		return verdictFile{}, errors.New("of another boot of the host")
	}
	return f, nil
}
