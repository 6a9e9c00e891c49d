package data

import (
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // registers the decoder
	_ "image/png"  // registers the decoder
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// picture is one file of an image folder.
type picture struct {
	path  string
	class string
}

// pictures lists the PNG and JPEG files in the subfolders of dir, by folder and
// name.
func pictures(dir string) []picture {
	var out []picture
	folders, _ := os.ReadDir(dir) // a folder that cannot be read holds none
	for _, f := range folders {
		if !f.IsDir() || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		files, _ := os.ReadDir(filepath.Join(dir, f.Name()))
		for _, p := range files {
			switch strings.ToLower(filepath.Ext(p.Name())) {
			case ".png", ".jpg", ".jpeg":
				out = append(out, picture{filepath.Join(dir, f.Name(), p.Name()), f.Name()})
			}
		}
	}
	return out
}

// pictureFolders gives the pictures of dir/train and dir/test, or of dir.
func pictureFolders(dir string) (train, test []picture) {
	if train = pictures(filepath.Join(dir, "train")); len(train) > 0 {
		return train, pictures(filepath.Join(dir, "test"))
	}
	return pictures(dir), nil
}

func hasPictures(dir string) bool { train, _ := pictureFolders(dir); return len(train) > 0 }

// openPictures reads a folder of images, a subfolder per class. All have the same
// size; they are grey if all files are, else RGB.
func openPictures(dir string, o Options) (*Set, error) {
	train, test := pictureFolders(dir)
	s := &Set{TestFrom: len(train)}
	for _, p := range train {
		s.Classes = append(s.Classes, p.class)
	}
	s.Classes = slices.Compact(sortNames(s.Classes))
	all := slices.Concat(train, test)
	channels, err := s.survey(all, o.MaxBytes)
	if err != nil {
		return nil, err
	}
	s.Shape[2] = channels
	size := s.Shape.Elements()
	if err := withinLimit(int64(size)*int64(len(all)), o.MaxBytes); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s.Images = make([]uint8, size*len(all))
	for i, p := range all {
		class := slices.Index(s.Classes, p.class)
		if class < 0 {
			return nil, fmt.Errorf("%s: %w: class %q is not among the training images'", p.path, ErrFormat, p.class)
		}
		s.Labels = append(s.Labels, int32(class))
		if err := withFile(p.path, func(r io.Reader) error {
			img, _, err := image.Decode(r)
			if err == nil {
				paint(s.Images[i*size:(i+1)*size], img, channels)
				return nil
			}
			return corrupt(err)
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// survey reads the headers alone: all sizes must agree; the number of channels is
// 3 if any file has colour.
func (s *Set) survey(all []picture, limit int64) (channels int, err error) {
	channels = 1
	for _, p := range all {
		if err := withFile(p.path, func(r io.Reader) error {
			c, _, err := image.DecodeConfig(r)
			if err != nil {
				return corrupt(err)
			}
			if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > min(limit, 1<<26) {
				return fmt.Errorf("%w: image of %d×%d", ErrTooLarge, c.Width, c.Height)
			}
			if s.Shape == nil {
				s.Shape = model.Shape{c.Height, c.Width, 1}
			}
			if s.Shape[0] != c.Height || s.Shape[1] != c.Width {
				return fmt.Errorf("%w: image of %d×%d: want %d×%d as the first, %s", ErrFormat, c.Width, c.Height, s.Shape[1], s.Shape[0], all[0].path)
			}
			if c.ColorModel != color.GrayModel && c.ColorModel != color.Gray16Model {
				channels = 3
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return channels, nil
}

// paint copies an image, channels last, without its transparency.
func paint(dst []uint8, img image.Image, channels int) {
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			if channels == 1 {
				dst[0] = color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y
			} else {
				c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
				dst[0], dst[1], dst[2] = c.R, c.G, c.B
			}
			dst = dst[channels:]
		}
	}
}
