"""What a `.keras` file may name: layers, operations and their parts that compute numbers and do nothing else.

A name that is not here is refused, whatever it is: `Lambda` and the wrappers of foreign code run what the file says,
and the look-up layers open files by names from the file.
"""

from __future__ import annotations

_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention Average
AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten GRU
GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer LSTM
LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention
Multiply Normalization PReLU Permute RMSNormalization RNN RandomBrightness RandomContrast RandomCrop RandomFlip
RandomRotation RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D
SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells
Subtract TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
ZeroPadding3D
"""
_INITIALIZERS = """
Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal
OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
_NUMPY = """
Abs Absolute Add All Amax Amin Any Arange Argmax Argmin Argsort Average BroadcastTo Ceil Clip Concatenate Cos Cumprod
Cumsum Diagonal Divide Dot Einsum Equal Exp ExpandDims Expm1 Flip Floor FloorDivide GetItem Greater GreaterEqual
Isfinite Isinf Isnan Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr LogicalXor Matmul Max Maximum Mean Min
Minimum Mod Moveaxis Multiply Negative NotEqual OnesLike Outer Pad Power Prod Ravel Reciprocal Repeat Reshape Roll Round
Sign Sin Sort Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile
Transpose Tril Triu TrueDivide Var Where ZerosLike
"""
_NN = """
AveragePool BatchNorm Celu Conv ConvTranspose DepthwiseConv Elu Gelu Glu HardShrink HardSigmoid HardSilu HardTanh
LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments Normalize OneHot Relu Relu6 RMSNorm Selu SeparableConv Sigmoid
Silu SoftShrink Softmax Softplus Softsign SparsePlus Squareplus TanhShrink Threshold
"""

ALLOWED: frozenset[str] = frozenset(
    [
        *(f"keras.layers.{name}" for name in _LAYERS.split()),
        *(f"keras.initializers.{name}" for name in _INITIALIZERS.split()),
        *(f"keras.regularizers.{name}" for name in ("L1", "L2", "L1L2", "OrthogonalRegularizer")),
        *(f"keras.constraints.{name}" for name in ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")),
        *(f"keras.src.ops.numpy.{name}" for name in _NUMPY.split()),
        *(f"keras.src.ops.nn.{name}" for name in _NN.split()),
        *(f"keras.src.ops.core.{name}" for name in ("Cast", "ConvertToTensor", "StopGradient", "Unstack")),
        "keras.DTypePolicy",
        *(
            f"keras.dtype_policies.{name}"
            for name in ("DTypePolicyMap", "Int4DTypePolicy", "QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy")
        ),
        "keras.quantizers.AbsMaxQuantizer",
        *(f"keras.quantizers.{name}QuantizationConfig" for name in ("Int8", "Int4", "Float8")),
        "keras.Sequential",
        "keras.Functional",
        "keras.Model",
        "keras.src.models.functional.Functional",
        "keras.src.models.sequential.Sequential",
        "keras.src.models.model.Model",
        *(
            f"rewrite.backends.keras.own_layers.{name}"
            for name in ("FunctionLayer", "HalfFrozenBatchNormalization", "LoRA", "Tap")
        ),
    ]
)
"""module and class, as the configuration has them"""

MARKERS = frozenset(["__keras_tensor__", "__slice__", "__tuple__", "__ellipsis__"])
"""class names without a module, by which Keras writes plain values"""
