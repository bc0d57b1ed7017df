package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"smolvm": main})
}

// TestScripts runs the real program, as far as it needs no VM.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=50") // a second per command otherwise
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SMOLVM_CONFIG", "/dev/null")
			e.Setenv("SMOLVM_HOME", e.WorkDir+"/home")
			e.Setenv("PATH", os.Getenv("PATH"))
			return nil
		},
		RequireExplicitExec: true,
	})
}

// TestGuestAgent: a program without its agent, or with another one, says so.
func TestGuestAgent(t *testing.T) {
	sum := sha256.Sum256([]byte("agent"))
	digest := hex.EncodeToString(sum[:])
	there := fstest.MapFS{"agent/README.md": {}, agentFile: {Data: []byte("agent")}}
	tests := []struct {
		name   string
		files  fstest.MapFS
		digest string
		err    string
	}{
		{"stamped", there, digest, ""},
		{"not stamped", there, "", ""},
		{"another", there, strings.Repeat("0", 64), "not the one it was built with"},
		{"none", fstest.MapFS{"agent/README.md": {}}, digest, "this smolvm was built without its guest agent: run script/build"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := guestAgent(tt.files, tt.digest)
			if tt.err == "" {
				if err != nil || string(b) != "agent" {
					t.Errorf("%q, %v", b, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || errdefs.RemedyOf(err) == "" {
				t.Errorf("error %v, want %q with a remedy", err, tt.err)
			}
		})
	}
}

// TestProtocol: what is written twice, because main may not import it, is the same.
func TestProtocol(t *testing.T) {
	if superviseCommand != rpc.Command || protocolMin != rpc.ProtocolMin || protocolMax != rpc.ProtocolMax {
		t.Errorf("%s %d %d, rpc has %s %d %d", superviseCommand, protocolMin, protocolMax, rpc.Command, rpc.ProtocolMin, rpc.ProtocolMax)
	}
}
