package relay

import (
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/guest/proto"
)

// TestGuestAnswersAreBounded: what a guest says is cut to what can be.
func TestGuestAnswersAreBounded(t *testing.T) {
	r := result(&proto.ExecExit{ExitCode: -7, Signal: 9999, Error: strings.Repeat("e", 1<<20), GuestUs: -1})
	if r.ExitCode != 255 || len(r.Error) > 4096 || r.GuestMicros != 0 || r.Signal != "" {
		t.Errorf("%d, %d bytes, %d, %q", r.ExitCode, len(r.Error), r.GuestMicros, r.Signal)
	}
	if r := result(&proto.ExecExit{ExitCode: 137, Signal: 9}); r.Signal != "SIGKILL" {
		t.Errorf("%+v", r)
	}
	f := fileInfo(&proto.FileInfo{Name: strings.Repeat("n", 1<<16), Type: "evil", Size: -1, Mode: 0o107777}, "/x")
	if len(f.Name) > proto.MaxPath || f.Type != "unknown" || f.Size != 0 || f.Mode != 0o7777 {
		t.Errorf("%d, %s, %d, %o", len(f.Name), f.Type, f.Size, f.Mode)
	}
}
