// SPDX-License-Identifier: Apache-2.0

// Package store keeps the control plane's state in etcd. By default etcd runs inside this process: one member, reached
// by the ordinary client without a connection, that listens for nobody but its own peers, in a socket file.
package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

const (
	startTime = 30 * time.Second
	// prefix of all keys: a cluster may be shared.
	prefix = "/keyhole/v1/"
)

// A Store is an open store. It is safe for concurrent use.
type Store struct {
	client *clientv3.Client
	server *embed.Etcd
}

// Open starts the embedded member in dir and connects to it.
func Open(ctx context.Context, dir string) (*Store, error) {
	// The socket's directory keeps everybody else away from it; a socket's path has at most 107 bytes.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	socket, err := filepath.Abs(filepath.Join(dir, "p"))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	const longest = 107 // struct sockaddr_un, unix(7)
	if len(socket) > longest {
		return nil, fmt.Errorf("open store: the path %s is too long for a socket by %d bytes; use a shorter directory", socket, len(socket)-longest)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open store: %w", err) // left by a process that was killed
	}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "etcd")
	config.Name = "keyhole"
	// A URL with a path would bind an abstract socket, which has no owner.
	config.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: socket}}
	config.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Host: "only-member"}} // there is nobody to tell
	config.ListenClientUrls, config.AdvertiseClientUrls = nil, nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.LogLevel = "fatal" // what goes wrong comes back as an error; at its end it calls a closed listener one
	config.AutoCompactionMode, config.AutoCompactionRetention = "periodic", "10m"
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("open store: start etcd in %s: %w", dir, err)
	}
	s := &Store{server: server}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		s.Close()
		return nil, fmt.Errorf("open store: etcd: %w", err)
	case <-time.After(startTime):
		s.Close()
		return nil, fmt.Errorf("open store: etcd was not ready within %v", startTime)
	case <-ctx.Done():
		s.Close()
		return nil, ctx.Err()
	}
	s.client = v3client.New(server.Server)
	return s, nil
}

// Close stops the store.
func (s *Store) Close() error {
	var err error
	if s.client != nil {
		err = s.client.Close()
		if errors.Is(err, context.Canceled) {
			err = nil // what closing an in-process client says
		}
	}
	s.server.Close()
	return err
}

// ErrConflict is returned when a key is not in the state that a write was meant for.
var ErrConflict = errors.New("the key was changed by somebody else")

// ErrNotFound is returned for a key that does not exist.
var ErrNotFound = errors.New("no such key")

// A Value is what a key holds.
type Value struct {
	Key      string // without the store's prefix
	Data     []byte
	Revision int64 // of the key's last change; 0: a key that does not exist
	Deleted  bool  // in a Change: the key is gone
}

// Write makes all puts in one transaction if every key still has the revision that its Value names, else none:
// ErrConflict. With a ttl above 0 the keys are removed that long after, or later.
func (s *Store) Write(ctx context.Context, ttl time.Duration, values ...Value) (revision int64, err error) {
	var options []clientv3.OpOption
	if ttl > 0 {
		lease, err := s.client.Grant(ctx, int64(ttl.Seconds())+1)
		if err != nil {
			return 0, fmt.Errorf("write to store: lease: %w", err)
		}
		options = append(options, clientv3.WithLease(lease.ID))
	}
	conditions := make([]clientv3.Cmp, 0, len(values))
	puts := make([]clientv3.Op, 0, len(values))
	for _, v := range values {
		key := prefix + v.Key
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", v.Revision))
		o := options
		if ttl == 0 && v.Revision > 0 {
			o = []clientv3.OpOption{clientv3.WithIgnoreLease()} // it keeps the end of life that it has
		}
		puts = append(puts, clientv3.OpPut(key, string(v.Data), o...))
	}
	response, err := s.client.Txn(ctx).If(conditions...).Then(puts...).Commit()
	if err != nil {
		return 0, fmt.Errorf("write to store: %w", err)
	}
	if !response.Succeeded {
		return 0, ErrConflict
	}
	return response.Header.Revision, nil
}

// Read returns what a key holds; ErrNotFound if it does not exist.
func (s *Store) Read(ctx context.Context, key string) (Value, error) {
	response, err := s.client.Get(ctx, prefix+key)
	if err != nil {
		return Value{}, fmt.Errorf("read from store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return Value{Key: key}, ErrNotFound
	}
	kv := response.Kvs[0]
	return Value{Key: key, Data: kv.Value, Revision: kv.ModRevision}, nil
}

// Follow returns all keys below a path as they are, and a channel of their changes after that. The channel is closed
// when ctx is done or the store ends.
func (s *Store) Follow(ctx context.Context, path string) ([]Value, <-chan Value, error) {
	response, err := s.client.Get(ctx, prefix+path, clientv3.WithPrefix())
	if err != nil {
		return nil, nil, fmt.Errorf("read from store: %w", err)
	}
	values := make([]Value, 0, len(response.Kvs))
	for _, kv := range response.Kvs {
		values = append(values, Value{Key: string(kv.Key[len(prefix):]), Data: kv.Value, Revision: kv.ModRevision})
	}
	watch := s.client.Watch(ctx, prefix+path, clientv3.WithPrefix(), clientv3.WithRev(response.Header.Revision+1))
	changes := make(chan Value)
	go func() {
		defer close(changes)
		for batch := range watch {
			for _, e := range batch.Events {
				v := Value{Key: string(e.Kv.Key[len(prefix):]), Data: e.Kv.Value, Revision: e.Kv.ModRevision, Deleted: e.Type == clientv3.EventTypeDelete}
				select {
				case changes <- v:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return values, changes, nil
}
