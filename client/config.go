// SPDX-License-Identifier: Apache-2.0

// Package client is the requester's end of the connection to a control plane: which one (the configuration file), who
// asks (mutual TLS), what was answered (every error is a *problem.Error), and a session watched to its end. It is for the
// commands, for bots and for pipelines.
package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/keyhole-dev/keyhole/internal/strictyaml"
)

// version of the configuration file's form.
const version = 1

// A Config is the configuration file: the control planes that somebody works with, and which of them is meant if nothing
// else is said. The zero Config knows none.
type Config struct {
	Version  int       `yaml:"version"`
	Current  string    `yaml:"current,omitempty"`
	Contexts []Context `yaml:"contexts"`
}

// A Context is one control plane and the files that its requester proves himself with. In the file relative paths
// start at the file's directory.
type Context struct {
	Name         string `yaml:"name"`
	ControlPlane string `yaml:"controlPlane"`     // host:port
	CA           string `yaml:"ca"`               // authorities of the control plane, PEM
	Certificate  string `yaml:"certificate"`      // the requester's certificate, PEM
	Key          string `yaml:"key"`              // and its private key, PEM
	LogKey       string `yaml:"logKey,omitempty"` // public key that the audit log's checkpoints are signed with
}

// DefaultPath is where the configuration file is if nothing else is said: keyhole/client.yaml in the user's
// configuration directory, which is ~/.config on Linux.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find configuration directory: %w", err)
	}
	return filepath.Join(dir, "keyhole", "client.yaml"), nil
}

// Load reads a configuration file. Unknown keys are refused. A file that does not exist is an error that is
// fs.ErrNotExist.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var c Config
	if err := strictyaml.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	for i := range c.Contexts {
		for _, file := range c.Contexts[i].files() {
			if *file != "" && !filepath.IsAbs(*file) {
				*file = filepath.Join(filepath.Dir(path), *file)
			}
		}
	}
	return &c, nil
}

func (c *Context) files() []*string { return []*string{&c.CA, &c.Certificate, &c.Key, &c.LogKey} }

func (c *Config) validate() error {
	if c.Version != version {
		return fmt.Errorf("version %d; want %d", c.Version, version)
	}
	seen := make(map[string]bool, len(c.Contexts))
	for i := range c.Contexts {
		x := &c.Contexts[i]
		switch {
		case x.Name == "":
			return fmt.Errorf("context %d has no name", i+1)
		case seen[x.Name]:
			return fmt.Errorf("two contexts are named %q", x.Name)
		case x.ControlPlane == "":
			return fmt.Errorf("context %q: no controlPlane; want host:port", x.Name)
		case x.CA == "" || x.Certificate == "" || x.Key == "":
			return fmt.Errorf("context %q: ca, certificate and key are needed", x.Name)
		}
		seen[x.Name] = true
	}
	if c.Current != "" && !seen[c.Current] {
		return fmt.Errorf("current: no context %q", c.Current)
	}
	return nil
}

// Find returns the context with this name.
func (c *Config) Find(name string) (Context, bool) {
	i := slices.IndexFunc(c.Contexts, func(x Context) bool { return x.Name == name })
	if i < 0 {
		return Context{}, false
	}
	return c.Contexts[i], true
}

// Use adds a context, or replaces that of the same name, and makes it the current one.
func (c *Config) Use(x Context) {
	i := slices.IndexFunc(c.Contexts, func(known Context) bool { return known.Name == x.Name })
	if i < 0 {
		c.Contexts = append(c.Contexts, x)
	} else {
		c.Contexts[i] = x
	}
	c.Current = x.Name
}

// Save writes the configuration file in one step: a reader sees the old file or the new one. Directories that are missing
// are made. Both are the user's alone.
func (c *Config) Save(path string) error {
	c.Version = version
	if err := c.validate(); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".client-*.yaml")
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write configuration: %w", errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write configuration: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// LoadOrNew is Load, but that a file that does not exist is an empty configuration.
func LoadOrNew(path string) (*Config, error) {
	c, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{Version: version}, nil
	}
	return c, err
}
