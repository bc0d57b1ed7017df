// Package status holds the HTTP API's routes about the server itself: version, health, metrics.
//
// Layer: part of the front server. It may import internal/server/web, internal/server/gate, api.
package status

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/server/gate"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Routes adds the operations.
type Routes struct {
	Version api.Version
	Started time.Time
	Counts  *gate.Counts
	// List returns all VMs.
	List func(ctx context.Context, all bool) ([]api.Sandbox, error)
}

const (
	tag = "server"
	// Health is the path that needs no token.
	Health = "/v1/health"
	// metricsType is Prometheus's text format.
	metricsType = "text/plain; version=0.0.4; charset=utf-8"
)

// Report is the answer of health.
type Report struct {
	Status string `json:"status" enum:"ok" doc:"ok: the server answers"`
}

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Register(to, huma.Operation{OperationID: "version", Method: http.MethodGet, Path: "/v1/version", Tags: []string{tag}, Summary: "Tell which program this is"},
		func(context.Context, *struct{}) (*web.Body[api.Version], error) {
			return &web.Body[api.Version]{Body: r.Version}, nil
		})
	web.Register(to, huma.Operation{OperationID: "health", Method: http.MethodGet, Path: Health, Tags: []string{tag}, Summary: "Tell that the server answers", Security: web.Open()},
		func(context.Context, *struct{}) (*web.Body[Report], error) {
			return &web.Body[Report]{Body: Report{Status: "ok"}}, nil
		})
	op := huma.Operation{OperationID: "metrics", Method: http.MethodGet, Path: "/v1/metrics", Tags: []string{tag}, Summary: "Tell figures for Prometheus", Description: "In Prometheus's text format 0.0.4."}
	web.Describe(&op, http.StatusOK, map[string]*huma.Schema{"text/plain": {Type: huma.TypeString}})
	web.Raw(to, op, r.metrics)
}

func (r Routes) metrics(ctx context.Context, _ *struct{}, a *web.Answer) error {
	vms, err := r.List(ctx, true)
	if err != nil {
		return err
	}
	states := map[api.State]uint64{}
	for _, vm := range vms {
		states[vm.State]++
	}
	var t text
	t.family("smolvm_build_info", "gauge", "The program; always 1.")
	t.sample(fmt.Sprintf("version=%q", r.Version.Version), 1)
	t.family("smolvm_start_time_seconds", "gauge", "When this server started, in seconds since 1970.")
	t.sample("", uint64(r.Started.Unix()))
	t.family("smolvm_vms", "gauge", "VMs by state.")
	for _, s := range append(api.States(), api.StateBroken) {
		t.sample(fmt.Sprintf("state=%q", string(s)), states[s])
	}
	t.family("smolvm_http_requests_running", "gauge", "Requests that this server works on.")
	t.sample("", uint64(max(0, r.Counts.Running.Load())))
	t.family("smolvm_http_streams_running", "gauge", "Those of them whose answers last.")
	t.sample("", uint64(max(0, r.Counts.Streams.Load())))
	t.family("smolvm_http_requests_total", "counter", "Requests that this server answered, by status.")
	for i := 1; i < len(r.Counts.Answered); i++ {
		t.sample(fmt.Sprintf("status=\"%dxx\"", i), r.Counts.Answered[i].Load())
	}
	t.family("smolvm_http_requests_refused_total", "counter", "Requests that no route saw: wrong tokens, foreign hosts, too many at once.")
	t.sample("", r.Counts.Refused.Load())
	_, err = a.Stream(metricsType).Write([]byte(t.String()))
	return err
}

// text is Prometheus's text format.
type text struct {
	strings.Builder
	name string
}

func (t *text) family(name, kind, help string) {
	t.name = name
	_, _ = fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (t *text) sample(labels string, v uint64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	_, _ = fmt.Fprintf(t, "%s%s %d\n", t.name, labels, v)
}
