package supervisor

import (
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
)

// TestOutcome: which end leaves the VM how.
func TestOutcome(t *testing.T) {
	stop, kill := end{reason: "stopped"}, end{reason: "its client is gone", kill: true, delete: true}
	tests := []struct {
		name    string
		asked   []end
		exit    engine.Exit
		console string
		state   api.State
		says    string
		delete  bool
	}{
		{"poweroff", nil, engine.Exit{Kind: engine.ExitPoweroff}, "", api.StateStopped, "guest powered off", false},
		{"reboot", nil, engine.Exit{Kind: engine.ExitReboot}, "", api.StateStopped, "reboot", false},
		{"panic and reset", nil, engine.Exit{Kind: engine.ExitReboot}, "x\nKernel panic - not syncing: oh\x1b\nmore", api.StateError, `panicked: oh\x1b`, false},
		{"panic", nil, engine.Exit{Kind: engine.ExitPanic}, "", api.StateError, "panicked", false},
		{"killed", nil, engine.Exit{Kind: engine.ExitKilled, Signal: "killed"}, "", api.StateError, "monitor was killed", false},
		{"failed", nil, engine.Exit{Kind: engine.ExitFailed, Code: 1, Detail: "no\x1b"}, "", api.StateError, `code 1: no\x1b`, false},
		{"asked, orderly", []end{stop}, engine.Exit{Kind: engine.ExitPoweroff}, "", api.StateStopped, "stopped", false},
		{"asked, not orderly", []end{stop}, engine.Exit{Kind: engine.ExitStopped}, "", api.StateStopped, "was killed", false},
		{"asked, then hurried", []end{stop, kill}, engine.Exit{Kind: engine.ExitStopped}, "", api.StateStopped, "stopped", true},
		{"broken", []end{{reason: "cannot run", kill: true, fail: true}}, engine.Exit{Kind: engine.ExitStopped}, "", api.StateError, "cannot run", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := (&ending{waiters: tt.asked}).outcome(tt.exit, []byte(tt.console))
			if o.state != tt.state || !strings.Contains(o.reason, tt.says) || o.delete != tt.delete {
				t.Errorf("%+v", o)
			}
		})
	}
}
