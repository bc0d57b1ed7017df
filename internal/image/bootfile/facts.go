package bootfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/plainfile"
	"github.com/smolvm/smolvm/internal/sys/sshkey"
)

// FactsFile lies beside a root file system and says more of it.
const FactsFile = "rootfs.json"

const (
	factsSchema = 1
	maxFacts    = 2 << 20
)

// facts are what the file says.
type facts struct {
	Schema int `json:"schema"`
	// Image is the digest of the image that it is.
	Image string `json:"image,omitempty"`
	// DiskMiB is the size of a VM's disk over it, where the VM does not say.
	DiskMiB int `json:"disk_mib,omitempty"`
	// AuthorizedKeys may log in, with those that the VM says.
	AuthorizedKeys []string  `json:"authorized_keys,omitempty"`
	CreatedAt      time.Time `json:"created_at,omitzero"`
}

// readFacts reads what lies beside a root file system; without such a file nothing is said.
func readFacts(rootfs string) (facts, error) {
	var f facts
	path := filepath.Join(filepath.Dir(rootfs), FactsFile)
	at, err := plainfile.Resolve(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	var file *os.File
	if err == nil {
		file, err = plainfile.Open(at, os.O_RDONLY)
	}
	if err != nil {
		return f, errdefs.Image.Errorf("what is said of %s: %w", rootfs, err)
	}
	defer func() { _ = file.Close() }()
	if err := trusted(file, rootfs); err != nil {
		return f, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFacts+1))
	if err == nil && len(b) > maxFacts {
		err = fmt.Errorf("it has more than %d bytes", maxFacts)
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return f, errdefs.Image.Errorf("%s, which says more of the root file system beside it: %w", path, err).WithRemedy("rm %s; it need not be there", path)
	}
	return f, nil
}

// trusted refuses what somebody else has put beside a user's file, where others may: its keys would let him in.
func trusted(said *os.File, rootfs string) error {
	var theirs, mine unix.Stat_t
	err := unix.Fstat(int(said.Fd()), &theirs)
	if err == nil {
		err = unix.Stat(rootfs, &mine)
	}
	if err != nil {
		return errdefs.Host.Errorf("who said this of %s: %w", rootfs, err)
	}
	if uid := int(theirs.Uid); uid != os.Geteuid() && uid != 0 && theirs.Uid != mine.Uid || theirs.Mode&0o002 != 0 {
		return errdefs.Denied.Errorf("%s, which says more of the root file system beside it, is of user %d, or others may write it", said.Name(), uid).
			WithRemedy("rm %s, or chmod o-w %s", said.Name(), said.Name())
	}
	return nil
}

func (f facts) check() error {
	switch {
	case f.Schema != factsSchema:
		return fmt.Errorf("it has schema %d, this smolvm knows %d", f.Schema, factsSchema)
	case f.DiskMiB != 0 && (f.DiskMiB < api.MinDiskMiB || f.DiskMiB > api.MaxDiskMiB):
		return fmt.Errorf("disk_mib: %d is not within %d to %d", f.DiskMiB, api.MinDiskMiB, api.MaxDiskMiB)
	case len(f.AuthorizedKeys) > api.MaxAuthorizedKeys:
		return fmt.Errorf("authorized_keys: %d are more than %d", len(f.AuthorizedKeys), api.MaxAuthorizedKeys)
	}
	return CheckKeys(f.AuthorizedKeys)
}

// CheckKeys refuses keys that OpenSSH would not take.
func CheckKeys(lines []string) error {
	for i, line := range lines {
		err := sshkey.Check(line)
		if err == nil {
			if _, _, options, _, perr := ssh.ParseAuthorizedKey([]byte(line)); perr != nil || len(options) > 0 {
				err = errors.New("it is damaged")
			}
		}
		if err != nil {
			return errdefs.Invalid.Errorf("authorized keys: number %d: %w", i+1, err).WithRemedy(sshkey.Remedy)
		}
	}
	return nil
}
