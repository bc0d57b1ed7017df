package fake

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/enginetest"
)

// scripted is a guest of the suite in this process.
type scripted struct{ m *Machine }

func (s scripted) PowerOff() { s.m.End(engine.Exit{Kind: engine.ExitPoweroff}) }
func (s scripted) Reboot()   { s.m.End(engine.Exit{Kind: engine.ExitReboot}) }
func (s scripted) Panic()    { s.m.End(engine.Exit{Kind: engine.ExitPanic}) }

func (s scripted) Remember(word string) { s.m.Remember(word) }
func (s scripted) Recall() string       { return s.m.Recall() }

func (s scripted) Print(line string) { _, _ = fmt.Fprintln(s.m.Spec().Console, line) }

func (s scripted) WriteDrive(id string, mib int) error {
	for _, d := range s.m.Spec().Drives {
		if d.ID == id {
			_, err := d.File.WriteAt(bytes.Repeat([]byte{1}, mib<<20), 0)
			return err
		}
	}
	return fmt.Errorf("no drive %q", id)
}

func TestSuite(t *testing.T) {
	enginetest.Run(t, enginetest.Config{
		Engine: New(Options{Guest: func(c net.Conn) {
			_ = enginetest.Serve(c, scripted{c.(*Conn).Machine})
		}}),
		Spec: func(t *testing.T) engine.Spec {
			s := spec(t)
			disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = disk.Close() })
			if err := disk.Truncate(8 << 20); err != nil {
				t.Fatal(err)
			}
			s.Drives = []engine.Drive{{ID: "image", File: s.Kernel, ReadOnly: true}, {ID: "disk", File: disk}}
			s.AgentPath = filepath.Join(t.TempDir(), "agent.sock")
			return s
		},
		Patience: 10 * time.Second,
	})
}
