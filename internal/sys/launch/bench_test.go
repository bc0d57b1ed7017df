package launch

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/sys/child"
)

// BenchmarkLaunch starts and ends one program in each way, one after the other in every round, so that a busy host slows all
// of them; what is told is the median and its ratio to the launcher that asks for no namespace.
func BenchmarkLaunch(b *testing.B) {
	program, err := exec.LookPath("true")
	if err != nil {
		b.Fatal(err)
	}
	whole := Plan{
		Program: program, Env: child.Environ(), MaxFiles: 64, Root: true,
		ReadDirs: []string{"/usr/lib", "/lib", "/lib64"}, ReadFiles: []string{"/etc/ld.so.cache"}, WriteFiles: []string{"/dev/null"},
	}
	if IsRoot() {
		whole.UID = 1_900_065_534
	}
	net, none := whole, whole
	net.RootRefused, none.Refused = "to compare", "to compare"
	ways := []struct {
		name string
		run  func() error
	}{
		{"alone", func() error { return finish(child.Start(exec.CommandContext(b.Context(), program))) }},
		{"none", func() error { return launchAndEnd(b, none) }},
		{"net", func() error { return launchAndEnd(b, net) }},
		{"root", func() error { return launchAndEnd(b, whole) }},
	}
	took := make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, w := range ways {
			begun := time.Now()
			if err := w.run(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begun))
		}
	}
	medians := make([]float64, len(ways))
	for i, w := range ways {
		slices.Sort(took[i])
		medians[i] = took[i][len(took[i])/2].Seconds() * 1000
		b.ReportMetric(medians[i], w.name+"-ms")
	}
	b.ReportMetric(medians[3]/medians[1], "root/none")
	b.ReportMetric(0, "ns/op")
}

func launchAndEnd(b *testing.B, p Plan) error {
	b.Helper()
	l, err := Prepare(b.Context(), p)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := child.Start(l.Cmd)
	if err != nil {
		return err
	}
	_, err = l.Report(b.Context())
	if err != nil {
		c.Kill()
		return err
	}
	return c.Wait()
}

func finish(c *child.Child, err error) error {
	if err != nil {
		return err
	}
	return c.Wait()
}
