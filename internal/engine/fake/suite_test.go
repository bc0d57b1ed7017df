package fake

import (
	"fmt"
	"net"
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

func (s scripted) Print(line string) { _, _ = fmt.Fprintln(s.m.Spec().Console, line) }

func (s scripted) WriteDrive(string, int) error { return nil }

func TestSuite(t *testing.T) {
	enginetest.Run(t, enginetest.Config{
		Engine: New(Options{Guest: func(c net.Conn) {
			_ = enginetest.Serve(c, scripted{c.(*Conn).Machine})
		}}),
		Spec: func(t *testing.T) engine.Spec {
			s := spec(t)
			s.Drives = []engine.Drive{{ID: "disk", File: s.Kernel}}
			return s
		},
		Patience: 10 * time.Second,
	})
}
