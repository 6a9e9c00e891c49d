package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Readiness is what a server says of itself.
type Readiness struct {
	Ready bool `json:"ready"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	// Replica is the server's id, Leader the leader's; "" if it knows none.
	Replica string `json:"replica,omitempty"`
	Leader  string `json:"leader,omitempty"`
	// Behind counts the committed entries of the log that its records lack.
	Behind uint64 `json:"behind"`
}

// maxHealth bounds the answer to a question of health.
const maxHealth = 64 << 10

// Ready asks a server whether it can serve. Not being ready is no error. It needs no token.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	var out Readiness
	body, status, err := c.get(ctx, "/readyz")
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("ask whether it is ready: status %d and %.100q: not an espalier server: %w", status, body, err)
	}
	return out, nil
}

// Alive asks a server whether its process works.
func (c *Client) Alive(ctx context.Context) error {
	body, status, err := c.get(ctx, "/healthz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("ask whether it works: status %d and %.100q", status, body)
	}
	return err
}

// get asks for a page of the server.
func (c *Client) get(ctx context.Context, path string) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	resp, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", path, err)
	}
	return body, resp.StatusCode, nil
}
