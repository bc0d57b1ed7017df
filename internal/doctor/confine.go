package doctor

import (
	"cmp"
	"context"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// launchTime is what a program that ends at once may take.
const launchTime = 20 * time.Second

// namespaces starts a program as a monitor is started, and tells what confines it and what does not.
func (d *doctor) namespaces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	report, err := confined(ctx)
	if err != nil {
		d.warn("namespaces", cmp.Or(launch.NamespacesRemedy(), "report this"), "a program could not be started as a monitor is: %v", err)
		return
	}
	missing := slices.DeleteFunc(report.Missing, func(m string) bool {
		// A VM's own number is taken when it starts, and Landlock has a line of its own.
		return strings.HasPrefix(m, "uid: ") || strings.HasPrefix(m, "landlock: ")
	})
	if len(missing) > 0 {
		d.warn("namespaces", cmp.Or(launch.NamespacesRemedy(), "allow namespaces to this user; with --require-confinement no VM starts"),
			"the monitor is confined less than it could be: %s", strings.Join(missing, "; "))
		return
	}
	in := slices.DeleteFunc(report.InForce, func(m string) bool { return m != "root" && !strings.HasSuffix(m, "ns") })
	d.ok("namespaces", "the monitor gets %s", strings.Replace(strings.Join(in, ", "), "root", "a root with nothing but its files", 1))
}

// confined launches true(1), with less where the host allows no more.
func confined(ctx context.Context) (launch.Report, error) {
	program, err := exec.LookPath("true")
	if err != nil {
		return launch.Report{}, err
	}
	plan := launch.Plan{
		Program: program, Env: child.Environ(), Root: true, MaxFiles: 64,
		ReadDirs: []string{"/usr/lib", "/usr/lib64", "/lib", "/lib64"}, ReadFiles: []string{"/etc/ld.so.cache"}, WriteFiles: []string{"/dev/null"},
	}
	for {
		report, err := launchOnce(ctx, plan)
		if err == nil {
			return report, nil
		}
		less, ok := plan.Lesser(err)
		if !ok {
			return report, err
		}
		plan = less
	}
}

func launchOnce(ctx context.Context, plan launch.Plan) (launch.Report, error) {
	l, err := launch.Prepare(ctx, plan)
	if err != nil {
		return launch.Report{}, err
	}
	defer l.Close()
	c, err := child.Start(l.Cmd)
	if err != nil {
		return launch.Report{}, err
	}
	report, err := l.Report(ctx)
	if err != nil {
		c.Kill()
		return report, err
	}
	return report, c.Wait()
}
