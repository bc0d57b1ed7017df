package launch

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/child"
)

// BenchmarkLaunch starts and ends one program in each way, one after the other in every round, so that a busy host slows all
// of them: alone, launched without namespaces, with those of the network, with a root of three directories, and with one of
// as many files as QEMU has libraries. What is told are the medians of the time and of the processor time, and their ratios to no
// namespaces.
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
	libraries, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/lib*.so.*")
	if err != nil || len(libraries) == 0 {
		b.Skipf("no libraries to take along: %v", err)
	}
	files := whole
	files.ReadDirs = nil
	files.ReadFiles = append([]string{"/etc/ld.so.cache", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"}, libraries[:min(50, len(libraries))]...)
	ways := []struct {
		name string
		run  func() error
	}{
		{"alone", func() error { return finish(child.Start(exec.CommandContext(b.Context(), program))) }},
		{"none", func() error { return launchAndEnd(b, none) }},
		{"net", func() error { return launchAndEnd(b, net) }},
		{"root", func() error { return launchAndEnd(b, whole) }},
		{"files", func() error { return launchAndEnd(b, files) }},
	}
	took, cpu := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, w := range ways {
			begun, used := time.Now(), processor(b)
			if err := w.run(); err != nil {
				b.Fatal(err)
			}
			took[i], cpu[i] = append(took[i], time.Since(begun)), append(cpu[i], processor(b)-used)
		}
	}
	for i, w := range ways {
		for unit, all := range map[string][][]time.Duration{"ms": took, "cpu-ms": cpu} {
			slices.Sort(all[i])
			median, none := all[i][len(all[i])/2].Seconds(), all[1][len(all[1])/2].Seconds()
			b.ReportMetric(median*1000, w.name+"-"+unit)
			if i > 1 {
				b.ReportMetric(median/none, w.name+"/none-"+unit)
			}
		}
	}
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

// processor is the time that we and our children that have ended took of a processor.
func processor(b *testing.B) (used time.Duration) {
	b.Helper()
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return used
}
