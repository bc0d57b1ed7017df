// Package show prints: errors, tables, JSON and progress, and makes what a guest wrote harmless on a terminal.
//
// Layer: part of the front cli. It may import api, errdefs.
package show

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
)

// Table begins a table with its heading. Flush prints it.
func Table(w io.Writer, columns ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.StripEscape)
	Row(t, columns...)
	return t
}

// Row adds one row; what is empty shows as a dash, and an empty last column not at all.
func Row(t io.Writer, cells ...string) {
	for i, c := range cells {
		switch {
		case i == len(cells)-1:
			_, _ = fmt.Fprintf(t, "%s\n", Cell(c))
		default:
			_, _ = fmt.Fprintf(t, "%s\t", Cell(cmp.Or(c, "-")))
		}
	}
}

// Age is how long ago t was; "" where it is unknown.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return units.HumanDuration(max(now.Sub(t), 0))
}

// List makes the JSON of nothing [].
func List[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
