// Segment an image with an OpenVINO export of pixelwise, without Python:
//
//     segment best-openvino/model.xml image.ppm mask.pgm
//
// Reads a binary PPM (P6) of RGB bytes, and writes the class indices as a binary PGM (P5) of the
// same size: gray value k is class k, counted from 0, as in the masks of `pixelwise predict`.

#include <cctype>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

struct Image {
    std::size_t height, width;
    std::vector<std::uint8_t> pixels;  // height x width x 3
};

// Read the next number of a PPM header, after white space and comments.
std::size_t read_number(std::istream& stream) {
    while (std::isspace(stream.peek()) || stream.peek() == '#') {
        if (stream.get() == '#') {
            std::string comment;
            std::getline(stream, comment);
        }
    }
    std::size_t number = 0;
    stream >> number;
    return number;
}

Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    char magic[2] = {};
    file.read(magic, 2);
    Image image;
    image.width = read_number(file);
    image.height = read_number(file);
    const std::size_t largest = read_number(file);
    file.get();  // the single white space before the pixels
    if (!file || magic[0] != 'P' || magic[1] != '6' || largest != 255)
        throw std::runtime_error(path + ": is not a binary PPM (P6) with 8 bits per channel");
    image.pixels.resize(image.height * image.width * 3);
    file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size());
    if (!file) throw std::runtime_error(path + ": is cut short");
    return image;
}

int main(int argc, char* argv[]) try {
    if (argc != 4) throw std::runtime_error("usage: segment model.xml image.ppm mask.pgm");
    Image image = read_ppm(argv[2]);

    ov::Core core;
    // Without this, processors with bfloat16 compute in it, and some labels differ.
    ov::CompiledModel model = core.compile_model(
        argv[1], "CPU", ov::hint::inference_precision(ov::element::f32));
    ov::InferRequest request = model.create_infer_request();
    // The graph takes bytes of any size: it normalizes, upsamples and classifies by itself.
    ov::Shape shape{1, image.height, image.width, 3};
    request.set_tensor("image", ov::Tensor(ov::element::u8, shape, image.pixels.data()));
    request.infer();

    const std::uint8_t* labels = request.get_tensor("labels").data<std::uint8_t>();
    std::ofstream mask(argv[3], std::ios::binary);
    mask << "P5\n" << image.width << ' ' << image.height << "\n255\n";
    mask.write(reinterpret_cast<const char*>(labels), image.height * image.width);
    if (!mask.flush()) throw std::runtime_error(std::string(argv[3]) + ": cannot be written");
    return 0;
} catch (const std::exception& error) {
    std::cerr << "segment: " << error.what() << '\n';
    return 2;
}
